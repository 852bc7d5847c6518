"""What may be learnt from: labelled rows and the pool of the training part, never a held-out group."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scanloop.archive.splits import assert_no_leakage
from scanloop.artifacts import read_json, read_table
from scanloop.embedding.cache import Embeddings
from scanloop.errors import ArtifactError, TooFewLabelsError
from scanloop.point_in_time import BEFORE_ANY, known_at
from scanloop.types import Groups, Half, Labels

logger = logging.getLogger("scanloop")

TRAIN, AUDIT, CONTROL = "train", "audit", "control"
"""Purposes of a bought label: of an image that was chosen, of one that was drawn at random to judge the machine, and of
one that was drawn at random beside those that were chosen, to be learnt from as they are."""


@dataclass(frozen=True)
class Known:
    """Labelled rows.

    Attributes:
        slice_ids: (n,) ids.
        vectors: float16 (n, d) embeddings.
        labels: (n,) class indices.
        groups: (n,) groups.
        drawn: (n,) whether the row was drawn at random; bought rows were chosen and must judge nothing.
        first: Leading columns that are the first of two encoders'; None where there is one.
        given: (n,) class indices that judge, where a reading took the place of a given label; None: `labels`.
    """

    slice_ids: npt.NDArray[Any]
    vectors: Half
    labels: Labels
    groups: Groups
    drawn: npt.NDArray[np.bool_]
    first: int | None = None
    given: Labels | None = None

    @property
    def judging(self) -> Labels:
        """(n,) class indices that the rows judge by: the given ones, whatever was read since.

        Images are read again where a model contradicts their label; what it says would judge itself by the answers.
        """
        return self.labels if self.given is None else self.given

    def take(self, rows: Labels | npt.NDArray[np.bool_]) -> "Known":
        """The rows with these indices, or under this mask."""
        drawn, given = self.drawn[rows], None if self.given is None else self.given[rows]
        found = (self.slice_ids[rows], self.vectors[rows], self.labels[rows], self.groups[rows])
        return Known(*found, drawn, self.first, given)

    def sources(self) -> list[str]:
        """Where each label to learn from comes from: "given", "reread" in place of another one given, or "bought"."""
        found = np.where(self.drawn, np.where(self.labels == self.judging, "given", "reread"), "bought")
        return [str(one) for one in found]


@dataclass(frozen=True)
class Pool:
    """Unlabelled rows.

    Attributes:
        slice_ids: (n,) ids.
        vectors: float16 (n, d) embeddings.
        groups: (n,) groups.
    """

    slice_ids: npt.NDArray[Any]
    vectors: Half
    groups: Groups

    def take(self, rows: Labels | npt.NDArray[np.bool_]) -> "Pool":
        """The rows with these indices, or under this mask."""
        return Pool(self.slice_ids[rows], self.vectors[rows], self.groups[rows])

    def without(self, groups: Groups) -> "Pool":
        """The rows that share no group with these."""
        return self.take(~np.isin(self.groups, groups))


def answers(labels: Path, pushed_out: pd.DataFrame, until: str | None = None) -> pd.DataFrame:
    """Rows of `labels.parquet` that may be learnt from, as they were known at a time; None: all.

    An answer to an image that `triage` pushed out may not.
    """
    everything = read_table(labels, "labels.parquet")
    bought = known_at(everything, until)
    if later := len(everything) - len(bought):
        logger.info("%d labels came after %s, or do not say when: they count from the next wave on", later, until)
    return bought[~bought["slice_id"].isin(set(pushed_out["slice_id"]))].reset_index(drop=True)


def labels_end(pseudo_labels: Path | None) -> str | None:
    """Time of the newest label that a wave of pseudo-labels learnt from; None where there is no wave.

    A label that came later could tell of the images that the wave was certified on; it counts from the next wave on.
    """
    facts = {} if pseudo_labels is None else read_json(pseudo_labels / "certificate.json")
    if "labels_as_of" not in facts:  # older versions did not say
        return None
    return facts["labels_as_of"] or BEFORE_ANY


def known_rows(
    manifest: pd.DataFrame, bought: pd.DataFrame | None, classes: Sequence[str], embeddings: Embeddings, split: str
) -> Known:
    """Labelled rows of a split; in the training part the labels bought since count as well.

    An image that was labelled and read again is learnt from as it was read, and judges as it was given. Those of the
    other parts keep what was given.

    Args:
        manifest: The catalog's.
        bought: From `answers`; None for no further labels.
        classes: The catalog's.
        embeddings: Of every slice.
        split: "train", "validation" or "test".

    Raises:
        LeakageError: A group crosses the splits.
        ArtifactError: A bought label is none of the classes.
    """
    assert_no_leakage(manifest)
    rows = manifest[manifest["split"] == split]
    label = rows["label"].astype(object).where(rows["label"].notna(), None)
    drawn = rows["label"].notna()
    if bought is not None and split == "train":
        answered = bought.dropna(subset="label").set_index("slice_id")["label"]
        if unknown := sorted(set(answered) - set(classes)):
            raise ArtifactError(
                f"labels.parquet: no class {', '.join(map(repr, unknown))} in the catalog, which has "
                f"{', '.join(classes)}; correct the labels, or ingest again with labelled images of that class"
            )
        read = rows["slice_id"].map(answered).astype(object)
        given, label = label.where(drawn, read), read.where(read.notna(), label)
    else:
        given = label
    keep = label.notna()
    indices, judging = ([classes.index(name) for name in one[keep]] for one in (label, given))
    ids = rows.loc[keep, "slice_id"].to_numpy(dtype=object)
    groups = rows.loc[keep, "group_id"].to_numpy(dtype=object)
    vectors, labels = embeddings.of(ids.tolist()), np.array(indices, dtype=np.int64)
    judges = None if indices == judging else np.array(judging, dtype=np.int64)
    return Known(ids, vectors, labels, groups, drawn[keep].to_numpy(dtype=bool), embeddings.first, judges)


def pool_rows(manifest: pd.DataFrame, known: Known, embeddings: Embeddings, pushed_out: pd.DataFrame) -> Pool:
    """Rows of the training part that nobody labelled and that `triage` did not push out."""
    left_out = {*known.slice_ids, *pushed_out["slice_id"]}
    rows = manifest[(manifest["split"] == "train") & ~manifest["slice_id"].isin(left_out)]
    ids = rows["slice_id"].to_numpy(dtype=object)
    return Pool(ids, embeddings.of(ids.tolist()), rows["group_id"].to_numpy(dtype=object))


LEAST_GROUPS, LEAST_GROUPS_TRIED = 2, 3
"""Groups of each class that a head needs to tune itself, and that a trial needs, whose folds tune heads on a part."""


def require_classes(known: Known, classes: Sequence[str], least: int = LEAST_GROUPS) -> None:
    """Return if every class has so many labelled groups, the least that can be learnt from and checked.

    Raises:
        TooFewLabelsError: A class has fewer; the message names it.
    """
    for index, name in enumerate(classes):
        count = len(np.unique(known.groups[known.labels == index]))
        if count < least:
            raise TooFewLabelsError(
                f"class {name!r} has {count} labelled group(s) in the training part; label at least {least}"
            )
