"""Groups and splits: images that belong together stay on one side, and what is held out has no copy in the pool."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanloop.errors import LeakageError
from scanloop.types import Groups, Labels

SPLITS = ("train", "validation", "test")
"""Splits from the least to the most held out."""

LISTED = ("groups", "patients")
"""What is listed by split beside the manifest, one a line: `train_groups.txt`, `test_patients.txt` and so on."""


def group_ids(slice_ids: npt.NDArray[np.uint64], links: Labels) -> npt.NDArray[np.uint64]:
    """Group of each slice: slices that a chain of links joins share one.

    Args:
        slice_ids: uint64 (n,), the first 64 bits of each slice's id.
        links: int64 (m, 2), rows that belong together: near-duplicates, or slices of one patient.

    Returns:
        uint64 (n,), the least of the ids in the group, so that a group keeps its name whatever the order of the rows.
    """
    ones = np.ones(len(links), bool)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(len(slice_ids), len(slice_ids)))
    count, component = connected_components(graph, directed=False)
    least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, component, slice_ids)
    groups: npt.NDArray[np.uint64] = least[component]
    return groups


def split_by_group(
    groups: Groups,
    labels: Sequence[str | None],
    given: Sequence[str | None],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> Groups:
    """Split of each slice; a group is never cut.

    A source's own splits are kept; where a group spans several of them, the most held-out one takes the whole group
    (test before validation before train), so that training loses a slice and never the hold-out its independence.
    Of the other groups, those with a label are drawn by seed into validation and test, class by class, and their
    unlabelled slices go with them and so leave the pool; at least one group of each class stays in train. A group
    counts for the class that most of its labels name.

    Args:
        groups: Group of each slice, (n,).
        labels: Class of each slice, None where unlabelled, (n,).
        given: Split that the source gives, None where it gives none, (n,).
        validation_share: Share of each class's labelled groups, in 0..1.
        test_share: Share of each class's labelled groups, in 0..1.
        seed: Of the draw; together with the group's name it decides, not the order of the rows.

    Returns:
        object (n,): "train", "validation" or "test".
    """
    codes, names = pd.factorize(np.asarray(groups))
    ranks = pd.Series(list(given), dtype=object).map({name: rank for rank, name in enumerate(SPLITS)})
    split = np.full(len(names), -1, np.int8)
    np.maximum.at(split, codes, ranks.fillna(-1).to_numpy(np.int8))
    label_of = pd.Series(list(labels), dtype=object)
    voting = np.flatnonzero(label_of.notna().to_numpy() & (split[codes] < 0))
    votes = pd.DataFrame({"code": codes[voting], "label": label_of.iloc[voting].to_numpy()}).value_counts()
    classes = votes.reset_index(name="votes").sort_values(["code", "votes", "label"], ascending=[True, False, True])
    for _, members in classes.drop_duplicates("code").groupby("label"):
        drawn = sorted(members["code"], key=lambda code: hashlib.sha256(f"{seed}:{names[code]}".encode()).digest())
        test, validation = _sizes(len(drawn), test_share, validation_share)
        split[drawn[:test]], split[drawn[test : test + validation]] = SPLITS.index("test"), SPLITS.index("validation")
    chosen: Groups = np.array(SPLITS, dtype=object)[np.maximum(split, 0)[codes]]
    return chosen


def assert_no_leakage(manifest: pd.DataFrame) -> None:
    """Return if no group and no patient crosses a split and each slice stands once.

    Args:
        manifest: Rows of the catalog's manifest.

    Raises:
        LeakageError: One does; the message names it.
    """
    if (twice := manifest["slice_id"][manifest["slice_id"].duplicated()]).size:
        raise LeakageError(f"slice {twice.iloc[0]} stands {(manifest['slice_id'] == twice.iloc[0]).sum()} times")
    known = manifest[manifest["patient_id"].notna()]
    patients = known["site"].fillna("").astype(str) + "/" + known["patient_id"].astype(str)
    for kind, keys, splits in (
        ("group", manifest["group_id"], manifest["split"]),
        ("patient", patients, known["split"]),
    ):
        counts = splits.groupby(keys.to_numpy()).nunique()
        if crossing := counts.index[counts > 1].tolist():
            found = sorted(splits[keys == crossing[0]].unique())
            others = f", and {len(crossing) - 1} more {kind}s" if len(crossing) > 1 else ""
            raise LeakageError(
                f"{kind} {crossing[0]} crosses splits ({', '.join(found)}){others}; "
                "training on it would leak the hold-out: ingest the source again"
            )


def _sizes(groups: int, test_share: float, validation_share: float) -> tuple[int, int]:
    """Groups of a class for test and for validation; a share above zero gets one if train keeps one."""
    wanted = [max(1, round(share * groups)) if share > 0 else 0 for share in (test_share, validation_share)]
    test = min(wanted[0], groups - 1)
    return test, min(wanted[1], groups - 1 - test)
