"""Label errors: given labels that contradict models which never saw their image's group are read again, blind."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.evaluation.holdout import mean_probabilities
from scanloop.sections.labelling import LabelErrorsConfig
from scanloop.types import Float, Labels

REASON = "chosen to check the labels that the archive came with; read it as if nobody had"
"""Told to readers: nothing in it depends on the label or on what a model says."""
CONFIDENT_LEARNING: dict[str, Any] = {
    "filter_by": "confident_learning", "return_indices_ranked_by": "normalized_margin", "n_jobs": 1,
}  # fmt: skip
HELD_OUT = ("test", "validation")


@dataclass(frozen=True)
class LabelErrorsSummary:
    """How many labels contradict, of how many that were looked at; how many are queued, and how many held out."""

    labelled: int
    suspected: int
    queued: int
    held_out: int
    price_eur: float


def suspects(labels: Labels, probabilities: Float) -> Labels:
    """Indices of labels that are likely wrong, the most likely first.

    Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068) as cleanlab has it: an image belongs to the
    likeliest of the classes whose probability reaches the mean that it has where it is the label. Where that is another
    class than the label, the label is suspected, by how far the likeliest other class exceeds it.

    Args:
        labels: (n,) class indices as given.
        probabilities: (n, classes) of models that saw neither the image nor its group.
    """
    if not len(labels):
        return np.empty(0, dtype=np.int64)
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(labels, probabilities, **CONFIDENT_LEARNING)
    return np.asarray(ranked, dtype=np.int64)


@step("label_errors")
def label_errors(
    config: LabelErrorsConfig,
    *,
    catalog: Path,
    baseline: Path,
    evaluation: Path | None = None,
    labels: Path | None = None,
    output: Path,
) -> LabelErrorsSummary:
    """Queue of labelled training images to be read again; published like any other.

    `label_errors.parquet` lists all that contradicts, held-out labels too. These are never queued: an answer would not
    change them, and whoever corrects a hold-out by its model's word has a hold-out that agrees with the model.

    Args:
        config: How many, at what price.
        catalog: Artifact of `ingest`.
        baseline: Artifact of `retrain` on labels alone: its out-of-fold predictions.
        evaluation: Artifact of `evaluate`: its predictions of held-out images; without it none is listed.
        labels: Labels bought since: what was read again is not proposed again.
        output: Directory for the queue.

    Raises:
        ArtifactError: An artifact is missing or damaged.
    """
    classes = read_json(catalog / "catalog.json")["classes"]
    given = read_table(catalog, "manifest", ["slice_id", "label", "split"]).dropna(subset="label").set_index("slice_id")
    said = mean_probabilities(read_table(baseline, "out_of_fold.parquet"))
    found = _found(given.loc[said.index], said, classes)
    if labels is not None:
        found = found[~found["slice_id"].isin(read_table(labels, "labels.parquet")["slice_id"])]
    wanted = found.head(
        min(config.most, int(Decimal(str(config.budget_eur)) // Decimal(str(config.price_per_label_eur))))
    )
    held_out = _held_out(evaluation, given, classes)
    price = float(len(wanted) * Decimal(str(config.price_per_label_eur)))
    write_table(output, "queue.parquet", pd.DataFrame({
        "slice_id": wanted["slice_id"],
        "rank": np.arange(1, len(wanted) + 1),
        "price": config.price_per_label_eur,
        "reason": REASON,
        "purpose": "train",
        "probabilities": said.loc[wanted["slice_id"]].tolist(),
    }))  # fmt: skip
    write_json(output / "queue.json", {
        "labels": len(wanted),
        "audit": 0,
        "price_eur": price,
        "price_per_label_eur": config.price_per_label_eur,
        "budget_eur": config.budget_eur,
        "pool": len(said),
    })  # fmt: skip
    write_table(output, "label_errors.parquet", pd.concat([found, held_out], ignore_index=True))
    return LabelErrorsSummary(len(said), len(found), len(wanted), len(held_out), price)


def _found(given: pd.DataFrame, said: "pd.Series[Any]", classes: Sequence[str]) -> pd.DataFrame:
    """Labels that contradict, most first: slice_id, split, given, model, probability of the given label."""
    labels = np.array([classes.index(name) for name in given["label"]], dtype=np.int64)
    probabilities = np.array(said.tolist(), dtype=np.float64).reshape(len(labels), len(classes))
    rows = suspects(labels, probabilities)
    return pd.DataFrame({
        "slice_id": given.index[rows],
        "split": given["split"].to_numpy()[rows],
        "given": given["label"].to_numpy()[rows],
        "model": [classes[one] for one in probabilities[rows].argmax(axis=1)],
        "probability_of_given": probabilities[rows, labels[rows]],
    })  # fmt: skip


def _held_out(evaluation: Path | None, given: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Those among the labels of the test and validation parts."""
    of_part = given[given["split"].isin(HELD_OUT)]
    if evaluation is None or of_part.empty:
        return pd.DataFrame()
    said = read_table(evaluation, "predictions.parquet").drop_duplicates("slice_id").set_index("slice_id")
    of_part = of_part[of_part.index.isin(said.index)]
    return _found(of_part, said.loc[of_part.index, "probabilities"], classes)
