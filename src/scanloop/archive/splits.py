"""Groups and splits: images that belong together stay on one side, and what is held out has no copy in the pool."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd

from scanloop.errors import LeakageError
from scanloop.types import Groups

SPLITS = ("train", "validation", "test")
"""Splits from the least to the most held out."""


def group_ids(slice_ids: Sequence[str], links: Iterable[tuple[int, int]]) -> Groups:
    """Group of each slice: slices that a chain of links joins share one.

    Args:
        slice_ids: Ids of n slices.
        links: Pairs of rows that belong together: near-duplicates, or slices of one patient.

    Returns:
        object (n,): the first 16 characters of the least slice id in the group, so that a group keeps its name
        whatever the order of the rows.
    """
    parents = np.arange(len(slice_ids))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = int(parents[row])
        return row

    for left, right in links:
        parents[root(left)] = root(right)
    roots = np.array([root(row) for row in range(len(slice_ids))], dtype=np.int64)
    least = pd.Series(list(slice_ids), dtype=object).groupby(roots).transform("min")
    return least.str[:16].to_numpy(dtype=object)


def shared_key_links(keys: Sequence[Iterable[Hashable]]) -> list[tuple[int, int]]:
    """Links between rows that share a key, such as a patient; a row may have none or several."""
    first: dict[Hashable, int] = {}
    return [(first[key], row) for row, own in enumerate(keys) for key in own if first.setdefault(key, row) != row]


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
    frame = pd.DataFrame({"group": groups, "label": list(labels), "given": list(given)}, dtype=object)
    rank = frame["given"].map({name: rank for rank, name in enumerate(SPLITS)}).astype(float)
    most_held_out = rank.groupby(frame["group"]).max().dropna()
    split = {group: SPLITS[int(value)] for group, value in most_held_out.items()}
    votes = frame[frame["label"].notna() & ~frame["group"].isin(split)].groupby(["group", "label"]).size()
    classes = votes.reset_index(name="votes").sort_values(["group", "votes", "label"], ascending=[True, False, True])
    for _, members in classes.drop_duplicates("group").groupby("label"):
        drawn = sorted(members["group"], key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
        test, validation = _sizes(len(drawn), test_share, validation_share)
        split |= dict.fromkeys(drawn[:test], "test") | dict.fromkeys(drawn[test : test + validation], "validation")
    return frame["group"].map(split).fillna("train").to_numpy(dtype=object)


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
