"""Groups and splits: images that belong together stay on one side, and what is held out has no copy in the pool."""

import hashlib
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanloop.artifacts import read_table
from scanloop.errors import ArtifactError, LeakageError
from scanloop.types import Groups, Labels

SPLITS = ("train", "validation", "test")
"""Splits from the least to the most held out."""

LISTED = ("groups", "patients")
"""What is listed by split beside the manifest, one a line: `train_groups.txt`, `test_patients.txt` and so on."""

REMEDY = "ingest the source again"

_BLOCK_ROWS = 1 << 16


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
    groups: npt.NDArray[np.uint64],
    labelled: Labels,
    labels: Groups,
    given: npt.NDArray[np.int8],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> npt.NDArray[np.int8]:
    """Split of each slice; a group is never cut.

    A source's own splits are kept; where a group spans several of them, the most held-out one takes the whole group
    (test before validation before train), so that training loses a slice and never the hold-out its independence.
    Of the other groups, those with a label are drawn by seed into validation and test, class by class, and their
    unlabelled slices go with them and so leave the pool; at least one group of each class stays in train. A group
    counts for the class that most of its labels name. Memory beside the arguments grows with what is labelled or
    given, and not with the pool.

    Args:
        groups: Group of each slice, uint64 (n,).
        labelled: Positions of the slices that have a label, int64 (m,).
        labels: Their classes, object (m,).
        given: Split that the source gives each slice, int8 (n,): its place in `SPLITS`, below 0 where it gives none.
        validation_share: Share of each class's labelled groups, in 0..1.
        test_share: Share of each class's labelled groups, in 0..1.
        seed: Of the draw; together with the group's name it decides, not the order of the rows.

    Returns:
        int8 (n,), the split's place in `SPLITS`.
    """
    held = np.flatnonzero(given >= 0)
    names = np.unique(np.concatenate([groups[held], groups[labelled]]))
    split = np.full(len(names), -1, np.int8)
    np.maximum.at(split, np.searchsorted(names, groups[held]), given[held])
    codes = np.searchsorted(names, groups[labelled])
    voting = split[codes] < 0
    votes = pd.DataFrame({"code": codes[voting], "label": labels[voting]}).value_counts()
    classes = votes.reset_index(name="votes").sort_values(["code", "votes", "label"], ascending=[True, False, True])
    for _, members in classes.drop_duplicates("code").groupby("label"):
        drawn = sorted(members["code"], key=lambda code: hashlib.sha256(f"{seed}:{names[code]}".encode()).digest())
        test, validation = _sizes(len(drawn), test_share, validation_share)
        split[drawn[:test]], split[drawn[test : test + validation]] = SPLITS.index("test"), SPLITS.index("validation")
    chosen = np.zeros(len(groups), np.int8)
    for start in range(0, len(groups) if len(names) else 0, _BLOCK_ROWS):
        block = groups[start : start + _BLOCK_ROWS]
        places = np.minimum(np.searchsorted(names, block), len(names) - 1)
        chosen[start : start + _BLOCK_ROWS] = np.where(names[places] == block, np.maximum(split[places], 0), 0)
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
    if unknown := sorted(set(manifest["split"].astype(str)) - set(SPLITS)):
        raise LeakageError(f"no split {unknown[0]!r}; there are {', '.join(SPLITS)}: {REMEDY}")
    patients = patient_names(manifest)
    for kind, keys, splits in (
        ("group", manifest["group_id"], manifest["split"]),
        ("patient", patients, manifest.loc[patients.index, "split"]),
    ):
        counts = splits.groupby(keys.to_numpy()).nunique()
        if crossing := counts.index[counts > 1].tolist():
            found = sorted(splits[keys == crossing[0]].unique())
            others = f", and {len(crossing) - 1} more {kind}s" if len(crossing) > 1 else ""
            raise LeakageError(
                f"{kind} {crossing[0]} crosses splits ({', '.join(found)}){others}; "
                f"training on it would leak the hold-out: {REMEDY}"
            )


def list_name(split: str, kind: str) -> str:
    """File that lists what stands in a split.

    >>> list_name("test", "groups")
    'test_groups.txt'
    """
    return f"{split}_{kind}.txt"


def split_lists(manifest: pd.DataFrame) -> dict[tuple[str, str], set[str]]:
    """Groups and patients of each split, by split and kind, as the lists beside the manifest name them.

    A patient is named as in the manifest, so by a pseudonym where the archive is de-identified, and as `site/patient`
    where the manifest knows the site.
    """
    patients = patient_names(manifest)
    columns = {"groups": manifest["group_id"].astype(str), "patients": patients}
    return {
        (split, kind): set(names[manifest.loc[names.index, "split"] == split])
        for kind, names in columns.items()
        for split in SPLITS
    }


def proven_manifest(catalog: Path) -> pd.DataFrame:
    """The manifest, read once more and held against the lists of groups and patients that ingest wrote.

    Raises:
        LeakageError: A group or a patient crosses the splits in the manifest or in the lists, or the two records of
            the splits differ: one of them was changed since.
        ArtifactError: A list is missing.
    """
    manifest = read_table(catalog, "manifest")
    assert_no_leakage(manifest)
    expected = split_lists(manifest)
    for kind in LISTED:
        listed = {split: _read_list(catalog / list_name(split, kind)) for split in SPLITS}
        for one, other in combinations(SPLITS, 2):
            if both := listed[one] & listed[other]:
                names = f"{list_name(one, kind)} and {list_name(other, kind)}"
                raise LeakageError(f"{catalog}: {names} both hold {min(both)}: {REMEDY}")
        for split in SPLITS:
            if changed := listed[split] ^ expected[split, kind]:
                raise LeakageError(
                    f"{catalog}: {list_name(split, kind)} and the manifest disagree on {min(changed)} (and "
                    f"{len(changed) - 1} more); one of them was changed after ingest: {REMEDY}"
                )
    return manifest


def assert_learnt_from_train(manifest: pd.DataFrame, slice_ids: Iterable[str], learner: str) -> None:
    """Return if everything that is learnt from stands in the training part, its group included.

    Args:
        manifest: Rows of the catalog's manifest, from `proven_manifest`.
        slice_ids: Slices that are learnt from.
        learner: Who learns, for the message.

    Raises:
        LeakageError: A slice is not in the catalog, so that nothing is known of it, or it or its group is held out.
    """
    splits = manifest.set_index("slice_id")["split"]
    rows = splits.index.get_indexer(pd.Index(list(slice_ids), dtype=object))
    if unknown := int((rows < 0).sum()):
        raise LeakageError(
            f"{learner} learns from {unknown} slice(s) that the catalog does not hold, so nothing shows that they are "
            "not held out: use the catalog that it was trained on, or run retrain again"
        )
    held_out = set(manifest.loc[manifest["split"] != "train", "group_id"])
    learnt = manifest.iloc[np.unique(rows)]
    leaking = learnt[(learnt["split"] != "train") | learnt["group_id"].isin(held_out)]
    if len(leaking):
        first = leaking.iloc[0]
        raise LeakageError(
            f"{learner} learns from slice {first['slice_id']} of group {first['group_id']}, which is held out "
            f"({first['split']}), and {len(leaking) - 1} more: run the steps from pseudo_label on again"
        )


def patient_names(manifest: pd.DataFrame) -> pd.Series:
    """Name of the patient of each row that has one; patients of two sites may share a number."""
    known = manifest[manifest["patient_id"].notna()]
    site = known["site"].map(lambda name: "" if name is None or name != name else f"{name}/")  # noqa: PLR0124  NaN
    names = site.astype(str) + known["patient_id"].astype(str)
    return names.map(as_line)


def as_line(name: str) -> str:
    """Name as it stands in a list that holds one a line."""
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def _read_list(path: Path) -> set[str]:
    try:
        return set(path.read_bytes().decode().split("\n")[:-1])
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: {REMEDY}") from error
    except UnicodeDecodeError as error:
        raise LeakageError(f"{path} is not what ingest wrote: {REMEDY}") from error


def _sizes(groups: int, test_share: float, validation_share: float) -> tuple[int, int]:
    """Groups of a class for test and for validation; a share above zero gets one if train keeps one."""
    wanted = [max(1, round(share * groups)) if share > 0 else 0 for share in (test_share, validation_share)]
    test = min(wanted[0], groups - 1)
    return test, min(wanted[1], groups - 1 - test)
