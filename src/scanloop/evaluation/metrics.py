"""Accuracy, macro-F1, macro-AUROC, ECE and Brier, each over many weightings of the same rows at once.

A resample is a row of weights: how often each image was drawn. One matrix product then replaces a thousand passes over
the images, which is what makes an interval by bootstrap as cheap as a point estimate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from scanloop.types import Float, Labels

Metric: TypeAlias = Callable[[Float, Labels, Float | None], Float]
"""From probabilities (n, classes), labels (n,) and weights (resamples, n) to one value a resample, (resamples,)."""

RANGES: Mapping[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "macro_f1": (0.0, 1.0),
    "auroc": (0.0, 1.0),
    "ece": (0.0, 1.0),
    "brier": (0.0, 2.0),
}
"""Smallest and largest possible value of each metric."""


def metrics_by_name(bins: int = 10) -> dict[str, Metric]:
    """Every metric under its name in `metrics.json`; `bins` is the number of bins of the ECE."""
    return {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "auroc": auroc,
        "ece": partial(expected_calibration_error, bins=bins),
        "brier": brier,
    }


def measure(probabilities: Float, labels: Labels, bins: int = 10) -> dict[str, float]:
    """Value of every metric, each image counted once.

    Args:
        probabilities: (n, classes) float64, or (repeats, n, classes), over which the value is averaged.
        labels: (n,) class indices.
        bins: Equal-width bins of the ECE.

    Returns:
        NaN stands for AUROC where the labels are all of one class; the other metrics are always defined.
    """
    repeats = probabilities if probabilities.ndim == 3 else probabilities[None]
    return {
        name: float(np.mean([metric(repeat, labels, None)[0] for repeat in repeats]))
        for name, metric in metrics_by_name(bins).items()
    }


def accuracy(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Share of images whose most probable class is the label, (resamples,), range 0..1."""
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return _weighted_mean(right, _rows(weights, labels))


def brier(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Brier score (Brier 1950): mean squared distance to the one-hot label, summed over classes; range 0..2.

    With two classes this is twice the score of the positive class alone, the 0..1 form that scikit-learn prints.
    """
    distance = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    return _weighted_mean(distance, _rows(weights, labels))


def expected_calibration_error(
    probabilities: Float, labels: Labels, weights: Float | None = None, *, bins: int = 10
) -> Float:
    """ECE of the predicted class (Guo et al. 2017, arXiv:1706.04599) over equal-width bins, (resamples,), in 0..1."""
    error: Float = np.abs(calibration_gaps(probabilities, labels, weights, bins=bins)).sum(axis=1)
    return error


def calibration_gaps(probabilities: Float, labels: Labels, weights: Float | None = None, *, bins: int = 10) -> Float:
    """Accuracy minus confidence of each bin times its share of the images, (resamples, bins), range -1..1.

    Bins are closed on the right, so a confidence of 1 falls into the last one. An empty bin has the gap 0.
    """
    drawn = _rows(weights, labels)
    confidence = probabilities.max(axis=1)
    member = np.zeros((len(labels), bins))
    member[np.arange(len(labels)), bin_of(confidence, bins)] = (probabilities.argmax(axis=1) == labels) - confidence
    gaps: Float = (drawn @ member) / drawn.sum(axis=1, keepdims=True)
    return gaps


def macro_f1(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """F1 averaged over the classes that occur among the labels or the predictions, (resamples,), range 0..1.

    NaN marks a resample that lost a class which the labels hold: averaging over the classes left would reward the loss.
    """
    matrix = confusion(probabilities, labels, weights)
    true, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    occurs = true + predicted > 0
    f1 = 2 * np.diagonal(matrix, axis1=1, axis2=2) / np.where(occurs, true + predicted, 1)
    mean = (f1 * occurs).sum(axis=1) / occurs.sum(axis=1)
    lost = (true[:, np.unique(labels)] == 0).any(axis=1)
    return np.where(lost, np.nan, mean)


def auroc(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Area under the ROC curve, one class against the rest, averaged over the classes of the labels; range 0..1.

    It is the chance that an image of the class gets a higher probability than another image, ties counting half
    (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747).
    NaN marks a resample that lost a class which the labels hold, and labels that are all of one class.
    """
    drawn = _rows(weights, labels)
    classes = probabilities.shape[1]
    present = np.unique(labels)
    if len(present) < 2:
        return np.full(len(drawn), np.nan)
    positives = [1] if classes == 2 else present
    areas = [_area(probabilities[:, positive], labels == positive, drawn) for positive in positives]
    lost = (drawn @ np.eye(classes)[labels][:, present] == 0).any(axis=1)
    return np.where(lost, np.nan, np.mean(areas, axis=0))


def confusion(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Confusion matrix (resamples, classes, classes): true classes in rows, predicted classes in columns."""
    drawn = _rows(weights, labels)
    classes = probabilities.shape[1]
    cell = np.eye(classes * classes)[labels * classes + probabilities.argmax(axis=1)]
    counts: Float = (drawn @ cell).reshape(len(drawn), classes, classes)
    return counts


def precision(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Share of each predicted class that is right, (resamples, classes); 0 for a class that is never predicted."""
    matrix = confusion(probabilities, labels, weights)
    predicted = matrix.sum(axis=1)
    return np.diagonal(matrix, axis1=1, axis2=2) / np.where(predicted > 0, predicted, 1)


def recall(probabilities: Float, labels: Labels, weights: Float | None = None) -> Float:
    """Share of each true class that is found, (resamples, classes); NaN for a class without images."""
    matrix = confusion(probabilities, labels, weights)
    true = matrix.sum(axis=2)
    return np.where(true > 0, np.diagonal(matrix, axis1=1, axis2=2) / np.where(true > 0, true, 1), np.nan)


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, one entry a bin.

    Attributes:
        edges: Bin edges, (bins + 1,), range 0..1.
        confidence: Mean confidence of each bin, (bins,); NaN where it is empty.
        accuracy: Share of right predictions in each bin, (bins,); NaN where it is empty.
        counts: Images in each bin, (bins,).
    """

    edges: Float
    confidence: Float
    accuracy: Float
    counts: Float


def reliability(probabilities: Float, labels: Labels, bins: int = 10) -> Reliability:
    """Confidence against accuracy in the bins of the ECE (DeGroot and Fienberg 1983, doi:10.2307/2987588)."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = bin_of(confidence, bins)
    counts = np.bincount(index, minlength=bins).astype(np.float64)
    share = np.where(counts > 0, counts, np.nan)
    return Reliability(
        np.linspace(0, 1, bins + 1),
        np.bincount(index, confidence, minlength=bins) / share,
        np.bincount(index, right, minlength=bins) / share,
        counts,
    )


def bin_of(confidence: Float, bins: int) -> Labels:
    """Equal-width bin of each confidence, (n,), range 0..bins-1; bins are closed on the right."""
    index: Labels = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return index


def _rows(weights: Float | None, labels: Labels) -> Float:
    return np.ones((1, len(labels))) if weights is None else weights


def _weighted_mean(values: Float, weights: Float) -> Float:
    mean: Float = (weights @ values) / weights.sum(axis=1)
    return mean


def _area(scores: Float, positive: np.ndarray[tuple[int], np.dtype[np.bool_]], weights: Float) -> Float:
    """Weighted area under one ROC curve for each row of weights; sorted once, for all rows."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    misses = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    below = np.cumsum(misses, axis=1) - misses / 2
    pairs = hits.sum(axis=1) * misses.sum(axis=1)
    area: Float = (hits * below).sum(axis=1) / np.where(pairs > 0, pairs, 1)
    return area
