"""What the models say of the images: one row a uri for readers, one row a slice for the watch on drift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Archive:
    """The archive's images with what is known of them.

    Attributes:
        sources: Columns slice_id and uri, one row a uri.
        manifest: One row a slice: slice_id, split and label.
        labels: Labels bought later, by slice_id.
        pseudo_labels: Columns slice_id, uri, promoted and reason.
    """

    sources: pd.DataFrame
    manifest: pd.DataFrame
    labels: Mapping[str, str]
    pseudo_labels: pd.DataFrame


def predictions_table(
    archive: Archive, probabilities: pd.Series, out_of_fold: set[str], classes: Sequence[str], positive: str
) -> pd.DataFrame:
    """Rows of `predictions.parquet`, in the order of the sources.

    Args:
        archive: Images and what is known of them.
        probabilities: (classes,) probabilities by slice_id, of every slice.
        out_of_fold: Slices whose probabilities come from models that never saw their group.
        classes: Names of the classes, in the order of the probabilities.
        positive: Class whose probability stands in a column of its own.
    """
    slices = archive.manifest[["slice_id", "split", "label"]].rename(columns={"label": "given_label"})
    bought = slices["slice_id"].map(dict(archive.labels))
    slices["given_label"] = slices["given_label"].where(slices["given_label"].notna(), bought)
    unlabelled = slices["given_label"].isna()
    slices.loc[slices["split"].eq("train") & unlabelled, "split"] = "pool"
    slices.loc[slices["slice_id"].isin(out_of_fold), "split"] = "cross_validation"
    values = np.stack(probabilities.loc[slices["slice_id"]].tolist())
    slices["label"] = np.array(classes, dtype=object)[values.argmax(axis=1)]
    slices["probability"] = values[:, list(classes).index(positive)]
    slices["confidence"] = values.max(axis=1)
    slices["probabilities"] = values.tolist()
    machine = archive.pseudo_labels[["slice_id", "uri", "promoted", "reason"]]
    rows = archive.sources[["slice_id", "uri"]].merge(slices, on="slice_id", how="left", validate="many_to_one")
    rows = rows.merge(machine, on=["slice_id", "uri"], how="left", validate="one_to_one")
    labelled = rows["given_label"].notna()
    rows["promoted"] = rows["promoted"].eq(True) & ~labelled
    fallback = np.where(rows["split"].isin(["test", "validation"]), "held out with its group", "not considered")
    reason = rows["reason"].where(rows["reason"].notna(), fallback)
    rows["reason"] = reason.where(~labelled, "labelled")
    return rows


def confidence_table(
    pseudo_labels: pd.DataFrame, reference: Sequence[str], pool: Sequence[str], positive: str
) -> pd.DataFrame:
    """Rows of `confidence.parquet`: how sure one head is of the hold-out and of the pool, one row a slice.

    Args:
        pseudo_labels: `pseudo_labels.parquet`; the head scored the pool unseen, and labelled slices out of fold.
        reference: Ids of the hold-out's slices.
        pool: Ids of the pool's slices.
        positive: Class whose share is watched.
    """
    sides = dict.fromkeys(reference, "reference") | dict.fromkeys(pool, "pool")
    rows = pseudo_labels.drop_duplicates("slice_id")
    rows = rows.assign(side=rows["slice_id"].map(sides), positive=rows["label"] == positive).dropna(subset="side")
    return rows[["slice_id", "side", "confidence", "positive"]]
