"""ROC, precision-recall, reliability and confusion as plain numbers: what `curves.json` holds and the figures draw.

With repeated cross-validation each curve is the mean over the repeats at a fixed abscissa (vertical averaging, Fawcett
2006, doi:10.1016/j.patrec.2005.10.010), so that its area is the mean of the areas, not that of an ensemble.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.metrics import confusion, reliability
from scanloop.types import Float, Labels

POINTS = 400
"""Steps of a curve's abscissa."""


def curves(probabilities: Float, holdout: Holdout, classes: Sequence[str], positive: str) -> dict[str, Any]:
    """Everything that the figures of one model need.

    Args:
        probabilities: (n, classes) or (repeats, n, classes) float64.
        holdout: Labels of the n images, and the bins of the reliability diagram.
        classes: Names of the classes, in the order of the probabilities.
        positive: Class for which alone ROC and PR are given where there are two; else each class has its own.
    """
    repeats = probabilities if probabilities.ndim == 3 else probabilities[None]
    labels = holdout.labels
    shown = range(len(classes)) if len(classes) > 2 else [list(classes).index(positive)]
    drawable = [label for label in shown if 0 < (labels == label).sum() < len(labels)]
    return {
        "classes": list(classes),
        "roc": {classes[label]: roc_curve(repeats[:, :, label], labels == label) for label in drawable},
        "pr": {classes[label]: precision_recall_curve(repeats[:, :, label], labels == label) for label in drawable},
        "reliability": reliability_curve(repeats, labels, holdout.bins),
        "confusion": mean_confusion(repeats, labels).tolist(),
    }


def roc_curve(scores: Float, positive: Labels) -> dict[str, list[float]]:
    """Mean true-positive rate at each false-positive rate.

    Args:
        scores: (repeats, n) scores of the class.
        positive: (n,) whether an image is of the class; both kinds occur.

    Returns:
        "fpr" and "tpr", from (0, 0) to (1, 1).
    """
    rates = np.linspace(0, 1, POINTS + 1)
    rows = []
    for row in scores:
        hits, misses = _counts(row, positive)
        rows.append(np.interp(rates, np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]]))
    return {"fpr": [0.0, *_plain(rates)], "tpr": [0.0, *_plain(np.mean(rows, axis=0))]}


def precision_recall_curve(scores: Float, positive: Labels) -> dict[str, Any]:
    """Mean precision at which each recall is reached, the average precision, and the class's share.

    Average precision is the step-wise area; straight lines between points would flatter it (Davis and Goadrich 2006,
    doi:10.1145/1143844.1143874).

    Args:
        scores: (repeats, n) scores of the class.
        positive: (n,) whether an image is of the class; both kinds occur.
    """
    recalls = np.arange(1, POINTS + 1) / POINTS
    rows, areas = [], []
    for row in scores:
        hits, misses = _counts(row, positive)
        precision, recall = hits / (hits + misses), hits / hits[-1]
        rows.append(precision[np.searchsorted(recall, recalls - 1e-12)])
        areas.append(float((np.diff(recall, prepend=0) * precision).sum()))
    return {
        "recall": _plain(recalls),
        "precision": _plain(np.mean(rows, axis=0)),
        "average_precision": float(np.mean(areas)),
        "prevalence": float(positive.mean()),
    }


def reliability_curve(repeats: Float, labels: Labels, bins: int) -> dict[str, Any]:
    """Mean confidence, accuracy and images of each bin over all repeats; null where a bin is empty."""
    pooled = reliability(np.concatenate(list(repeats)), np.tile(labels, len(repeats)), bins)
    return {
        "edges": _plain(pooled.edges),
        "confidence": _plain(pooled.confidence),
        "accuracy": _plain(pooled.accuracy),
        "counts": _plain(pooled.counts / len(repeats)),
    }


def mean_confusion(repeats: Float, labels: Labels) -> Float:
    """Confusion matrix (classes, classes), true classes in rows, averaged over repeats (repeats, n, classes)."""
    mean: Float = np.mean([confusion(repeat, labels)[0] for repeat in repeats], axis=0)
    return mean


def _counts(scores: Float, positive: Labels) -> tuple[Float, Float]:
    """Positives and negatives at or above each distinct score, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    return hits, (last + 1) - hits


def _plain(values: Float) -> list[float]:
    """Numbers with six decimals: enough for a picture, and the file stays small."""
    return [float(value) for value in np.round(values, 6)]
