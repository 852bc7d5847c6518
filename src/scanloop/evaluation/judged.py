"""The images that judge a model, and only those: held out, and labelled before anything was bought."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanloop.grouping import one_a_group
from scanloop.types import Float, Groups, Labels

HELD_OUT = ("test", "cross_validation")


@dataclass(frozen=True)
class Judged:
    """What one model, or two, say of the hold-out.

    Attributes:
        slice_ids: (n,) slices, each once, sorted.
        labels: (n,) true class indices.
        groups: (n,) group of each image.
        probabilities: (n, classes) of the model that is judged.
        rival: (n, classes) of the model that it is held against; None without one.
    """

    slice_ids: Groups
    labels: Labels
    groups: Groups
    probabilities: Float
    rival: Float | None = None

    @property
    def count(self) -> int:
        """Independent groups."""
        return len(np.unique(self.groups))

    def one_a_group(self, seed: int) -> "Judged":
        """One image of each group, drawn by seed: what exact tests, which know no groups, may count."""
        rows = np.sort(one_a_group(self.groups, seed))
        rival = None if self.rival is None else self.rival[rows]
        return Judged(self.slice_ids[rows], self.labels[rows], self.groups[rows], self.probabilities[rows], rival)


def judged_rows(predictions: pd.DataFrame, manifest: pd.DataFrame, classes: Sequence[str]) -> Judged:
    """The hold-out as a model's `predictions.parquet` tells of it.

    A label that was bought later never judges, though its image is held out of a fold: it was bought because a model
    was unsure of it. The truth is therefore the manifest's label, and rows without one are left out.

    Args:
        predictions: `predictions.parquet`.
        manifest: Columns slice_id, group_id and label, of the catalog.
        classes: Names of the classes, in the order of the probabilities.
    """
    drawn = manifest.loc[manifest["label"].notna(), ["slice_id", "group_id", "label"]]
    drawn = drawn.rename(columns={"label": "truth"})
    rows = held_out(predictions)[["slice_id", "probabilities"]].merge(drawn, on="slice_id").sort_values("slice_id")
    labels = np.array([list(classes).index(name) for name in rows["truth"]], dtype=np.int64)
    return Judged(
        rows["slice_id"].to_numpy(str), labels, rows["group_id"].to_numpy(str),
        np.array(rows["probabilities"].tolist(), dtype=np.float64).reshape(len(rows), len(classes)),
    )  # fmt: skip


def against(ours: Judged, predictions: pd.DataFrame) -> Judged:
    """The images of the hold-out that a rival, too, was measured on without having learnt from them.

    Args:
        ours: The model that is judged.
        predictions: `predictions.parquet` of the rival, whose classes are the same, in the same order.
    """
    theirs = held_out(predictions).set_index("slice_id")["probabilities"]
    rows = np.flatnonzero(np.isin(ours.slice_ids, theirs.index.to_numpy(str)))
    rival = np.array(theirs.loc[ours.slice_ids[rows]].tolist(), dtype=np.float64)
    return Judged(
        ours.slice_ids[rows], ours.labels[rows], ours.groups[rows], ours.probabilities[rows],
        rival.reshape(len(rows), ours.probabilities.shape[1]),
    )  # fmt: skip


def held_out(predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows of a prediction table that are held out, a slice once."""
    return predictions[predictions["split"].isin(HELD_OUT)].drop_duplicates("slice_id")


def holdout_digest(judged: Judged, classes: Sequence[str]) -> str:
    """Digest of a hold-out's slices with their labels: what looks are counted by."""
    digest = hashlib.sha256()
    for slice_id, label in zip(judged.slice_ids, judged.labels, strict=True):
        digest.update(f"{slice_id}\t{classes[label]}\n".encode())
    return digest.hexdigest()
