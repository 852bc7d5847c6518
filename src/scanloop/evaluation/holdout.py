"""The images that measure the models, and what each arm says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from scanloop.errors import ArtifactError, TooFewLabelsError
from scanloop.evaluation.calibration import honesty
from scanloop.evaluation.comparison import Holdout, class_intervals, difference_intervals, metric_intervals
from scanloop.evaluation.curves import mean_confusion
from scanloop.evaluation.intervals import Resampling, group_index
from scanloop.types import Float

ARMS = ("supervised", "semi_supervised")
"""Trained on the given labels alone, and on these with the promoted pseudo-labels."""


@dataclass(frozen=True)
class Measurement:
    """Both arms' probabilities on the same hold-out.

    Attributes:
        kind: "test", or "cross_validation" where no image is set aside.
        slice_ids: (n,) slices of the hold-out.
        holdout: Their labels and groups.
        arms: (repeats, n, classes) probabilities, by arm.
    """

    kind: str
    slice_ids: Sequence[str]
    holdout: Holdout
    arms: Mapping[str, Float]


def held_out_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows set aside as a test, with a label; a label bought later never makes a row part of it."""
    return manifest[(manifest["split"] == "test") & manifest["label"].notna()]


def measure_test(rows: pd.DataFrame, arms: Mapping[str, Float], classes: Sequence[str], bins: int) -> Measurement:
    """Measurement on a test hold-out.

    Args:
        rows: Rows of the manifest, from `held_out_rows`.
        arms: (n, classes) probabilities of these rows, by arm.
        classes: Names of the classes, in the order of the probabilities.
        bins: Bins of the ECE.
    """
    holdout = _holdout(rows["label"], rows["group_id"], classes, bins)
    return Measurement(
        "test", rows["slice_id"].tolist(), holdout, {name: values[None] for name, values in arms.items()}
    )


def measure_out_of_fold(
    tables: Mapping[str, pd.DataFrame], drawn: set[str], classes: Sequence[str], bins: int
) -> Measurement:
    """Measurement on the out-of-fold predictions of repeated group cross-validation.

    Args:
        tables: `out_of_fold.parquet` by arm; the logits are temperature-scaled by other folds.
        drawn: Slices whose labels were known from the start. Labels bought later were chosen because the model was
            unsure of them; they would measure how hard the queue is.
        classes: Names of the classes, in the order of the logits.
        bins: Bins of the ECE.

    Raises:
        TooFewLabelsError: No label was known from the start.
        ArtifactError: The arms were cross-validated on different slices, or a repeat lacks some.
    """
    arms, rows = {}, {}
    for name, whole in tables.items():
        table = whole[whole["slice_id"].isin(drawn)].sort_values(["repeat", "slice_id"], kind="stable")
        if table.empty:
            raise TooFewLabelsError("nothing measures the models: no test split, and no label known from the start")
        first = table[table["repeat"] == table["repeat"].iloc[0]]
        repeats = table["repeat"].nunique()
        if table["slice_id"].tolist() != first["slice_id"].tolist() * repeats:
            raise ArtifactError(f"out_of_fold.parquet of {name}: the repeats hold different slices; run retrain again")
        arms[name] = probabilities_of(table).reshape(repeats, len(first), -1)
        rows[name] = first
    one, other = (rows[name] for name in ARMS)
    if one["slice_id"].tolist() != other["slice_id"].tolist() or one["label"].tolist() != other["label"].tolist():
        raise ArtifactError("baseline and bundle were cross-validated on different labels; run retrain again for both")
    holdout = _holdout(one["label"], one["group_id"], classes, bins)
    return Measurement("cross_validation", one["slice_id"].tolist(), holdout, arms)


def measure_arms(measurement: Measurement, plan: Resampling, classes: Sequence[str], deployed: str) -> dict[str, Any]:
    """Content of `metrics.json`: each arm's metrics, their paired difference, and the deployed arm class by class.

    Args:
        measurement: Both arms on the hold-out.
        plan: Resamples, confidence and seed.
        classes: Names of the classes, in the order of the probabilities.
        deployed: Arm that would be served.
    """
    holdout, chosen = measurement.holdout, measurement.arms[deployed]
    supervised, semi_supervised = (measurement.arms[arm] for arm in ARMS)
    images = {name: int((holdout.labels == number).sum()) for number, name in enumerate(classes)}
    by_class = class_intervals(chosen, holdout, plan)
    return {
        "arms": {arm: metric_intervals(values, holdout, plan) for arm, values in measurement.arms.items()},
        "calibration": {
            arm: honesty(values, holdout.labels, holdout.bins, plan.seed) for arm, values in measurement.arms.items()
        },
        "difference": difference_intervals(semi_supervised, supervised, holdout, plan),
        "deployed_arm": deployed,
        "holdout": {
            "kind": measurement.kind,
            "images": len(holdout.labels),
            "groups": group_index(holdout.groups)[1],
            "repeats": len(chosen),
            "classes": images,
        },
        "confusion": {"classes": list(classes), "counts": mean_confusion(chosen, holdout.labels)},
        "per_class": {name: {"images": images[name]} | row for name, row in zip(classes, by_class, strict=True)},
        "bins": holdout.bins,
    }


def mean_probabilities(table: pd.DataFrame) -> pd.Series:
    """Mean out-of-fold probabilities (classes,) of each slice, by slice_id."""
    values = probabilities_of(table)
    index, slice_ids = pd.factorize(table["slice_id"], sort=True)
    sums = np.zeros((len(slice_ids), values.shape[1]))
    np.add.at(sums, index, values)
    return pd.Series(list(sums / np.bincount(index)[:, None]), index=pd.Index(slice_ids), dtype=object)


def probabilities_of(table: pd.DataFrame) -> Float:
    """Probabilities (rows, classes) of a table with a column of calibrated logits."""
    probabilities: Float = softmax(np.stack([np.asarray(row, dtype=np.float64) for row in table["logits"]]), axis=1)
    return probabilities


def _holdout(labels: pd.Series, groups: pd.Series, classes: Sequence[str], bins: int) -> Holdout:
    number = {name: position for position, name in enumerate(classes)}
    if unknown := sorted(set(labels) - set(number)):
        raise ArtifactError(f"the hold-out has labels that the model does not know: {', '.join(unknown)}")
    return Holdout(np.array([number[label] for label in labels], dtype=np.int64), groups.to_numpy(dtype=str), bins)
