"""What a model reaches on its hold-out, and whether one arm beats another: every metric with an honest interval.

Predictions may come from repeated cross-validation, (repeats, n, classes): a value is then the mean over the repeats,
and a resample draws the same groups in all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scanloop.evaluation.intervals import Resampling, bootstrap_interval, exact_interval, group_index, replicate
from scanloop.evaluation.metrics import RANGES, Metric, calibration_gaps, metrics_by_name, precision, recall
from scanloop.types import Float, Groups, Interval, Labels


@dataclass(frozen=True)
class Holdout:
    """Labelled images that no compared model was trained on.

    Attributes:
        labels: (n,) true class indices.
        groups: (n,) group of each image; groups are independent, images of one group are not.
        bins: Equal-width bins of the ECE.
    """

    labels: Labels
    groups: Groups
    bins: int = 10

    def independent(self, metric: str) -> int:
        """Groups that a metric stands on.

        The macro metrics weigh classes alike, so a thousand normal groups beside three of cancer count as six.
        """
        _, count = group_index(self.groups)
        if metric not in ("macro_f1", "auroc"):
            return count
        present = np.unique(self.labels)
        rarest = min(len(np.unique(self.groups[self.labels == label])) for label in present)
        return min(count, rarest * len(present))


def metric_intervals(probabilities: Float, holdout: Holdout, plan: Resampling) -> dict[str, Interval]:
    """Every metric of one model with its interval.

    Args:
        probabilities: (n, classes) or (repeats, n, classes) float64.
        holdout: Labels and groups of the n images.
        plan: Resamples, confidence and seed.

    Returns:
        Intervals by metric. AUROC has the method "undefined", a NaN value and the bounds 0 and 1 where the hold-out
        holds one class only.
    """
    return {name: metric_interval(name, probabilities, holdout, plan) for name in RANGES}


def metric_interval(name: str, probabilities: Float, holdout: Holdout, plan: Resampling) -> Interval:
    """One metric with its interval; exact, or widened by what the hold-out cannot rule out, where nothing varies.

    - Accuracy of one prediction an image and one image a group is a proportion: Clopper-Pearson.
    - Where no resample differs - all right, all wrong, a perfect ranking - the bounds lie as far from the value as the
      error rate that so many groups can miss: 1 - (alpha/2)^(1/groups), the Clopper-Pearson bound of "never wrong".
    - ECE and Brier vary even without a single error, so there they are widened by the same error rate.
    - ECE: see `_calibration_bounds`.
    """
    repeats = _repeats(probabilities)
    groups = group_index(holdout.groups)[1]
    right = (repeats.argmax(axis=2) == holdout.labels).mean(axis=0)
    if name == "accuracy" and len(repeats) == 1 and groups == len(right):
        return exact_interval(int(right.sum()), groups, plan.confidence)
    interval = bootstrap_interval(
        _mean_over_repeats(_metric(name, holdout), repeats, holdout.labels), holdout.groups, plan
    )
    if name == "ece":
        low, high = _calibration_bounds(interval.value, repeats, holdout, plan)
        interval = replace(interval, low=low, high=high)
    saturated = right.min() == right.max() and right[0] in (0.0, 1.0)
    if _degenerate(interval) or (name in ("ece", "brier") and saturated):
        interval = _widened(interval, holdout.independent(name), RANGES[name])
    return _bounded(interval, RANGES[name])


def difference_intervals(first: Float, second: Float, holdout: Holdout, plan: Resampling) -> dict[str, Interval]:
    """Every metric of the first model minus that of the second, paired: both see the same resamples."""
    return {name: difference_interval(name, first, second, holdout, plan) for name in RANGES}


def difference_interval(name: str, first: Float, second: Float, holdout: Holdout, plan: Resampling) -> Interval:
    """Metric of the first model minus that of the second, with its paired interval.

    The same predictions differ by exactly 0. Different predictions that score alike in every resample may still differ
    elsewhere: their bounds are widened as in `metric_interval`.
    """
    one, other = _repeats(first), _repeats(second)
    groups = group_index(holdout.groups)[1]
    if one.shape == other.shape and np.array_equal(one, other):
        return Interval(0.0, 0.0, 0.0, len(holdout.labels), groups, plan.confidence, "exact")
    metric = _metric(name, holdout)
    value_of, value_of_other = (_mean_over_repeats(metric, arm, holdout.labels) for arm in (one, other))
    interval = bootstrap_interval(lambda weights: value_of(weights) - value_of_other(weights), holdout.groups, plan)
    span = RANGES[name][1] - RANGES[name][0]
    if _degenerate(interval):
        interval = _widened(interval, holdout.independent(name), RANGES[name])
    return _bounded(interval, (-span, span))


def class_intervals(probabilities: Float, holdout: Holdout, plan: Resampling) -> list[dict[str, Interval]]:
    """Precision and recall of each class with their intervals; a class without images has an undefined recall."""
    repeats = _repeats(probabilities)
    found = []
    for label in range(repeats.shape[2]):
        row = {}
        for name, metric in (("precision", precision), ("recall", recall)):
            statistic = _mean_over_repeats(_of_class(metric, label), repeats, holdout.labels)
            interval = bootstrap_interval(statistic, holdout.groups, plan)
            if _degenerate(interval):
                chosen = repeats.argmax(axis=2) == label if name == "precision" else (holdout.labels == label)[None]
                behind = len(np.unique(holdout.groups[chosen.any(axis=0)]))
                interval = _widened(interval, max(behind, 1), (0.0, 1.0))
            row[name] = _bounded(interval, (0.0, 1.0))
        found.append(row)
    return found


def _metric(name: str, holdout: Holdout) -> Metric:
    return metrics_by_name(holdout.bins)[name]


def _repeats(probabilities: Float) -> Float:
    return probabilities if probabilities.ndim == 3 else probabilities[None]


def _mean_over_repeats(metric: Metric, repeats: Float, labels: Labels) -> Callable[[Float], Float]:
    def statistic(weights: Float) -> Float:
        mean: Float = np.mean([metric(repeat, labels, weights) for repeat in repeats], axis=0)
        return mean

    return statistic


def _of_class(metric: Metric, label: int) -> Metric:
    return lambda probabilities, labels, weights: metric(probabilities, labels, weights)[:, label]


def _degenerate(interval: Interval) -> bool:
    """Whether no resample differed; the tolerance is the noise of adding floats in another order."""
    return bool(interval.high - interval.low < 1e-9)


def _widened(interval: Interval, trials: int, bounds: tuple[float, float]) -> Interval:
    """Interval that also covers the errors which so many independent groups may have missed."""
    unseen = (1 - exact_interval(trials, trials, interval.confidence).low) * (bounds[1] - bounds[0])
    return replace(interval, low=interval.low - unseen, high=interval.high + unseen, method="exact")


def _bounded(interval: Interval, bounds: tuple[float, float]) -> Interval:
    if interval.method == "undefined":
        return replace(interval, low=bounds[0], high=bounds[1])
    return replace(interval, low=max(interval.low, bounds[0]), high=min(interval.high, bounds[1]))


def _calibration_bounds(value: float, repeats: Float, holdout: Holdout, plan: Resampling) -> tuple[float, float]:
    """Bounds of an ECE, which is biased upwards: noise alone, in the sample or in a resample, makes it positive.

    The ECE is the L1 norm of the bins' signed gaps. By the triangle inequality it lies no further from the truth than
    the norm of the gaps' error, which the bootstrap estimates: this is the lower bound, so that a calibrated model's
    interval reaches 0. The upper bound is the plain percentile, whose bias errs on the safe side.
    """

    def gaps(weights: Float) -> Float:
        return np.stack(
            [calibration_gaps(repeat, holdout.labels, weights, bins=holdout.bins) for repeat in repeats], axis=1
        )

    observed = gaps(np.ones((1, len(holdout.labels))))
    drawn = replicate(gaps, holdout.groups, plan)
    error = np.abs(drawn - observed).sum(axis=2).mean(axis=1)
    upper = np.quantile(np.abs(drawn).sum(axis=2).mean(axis=1), (1 + plan.confidence) / 2)
    return float(value - np.quantile(error, plan.confidence)), max(float(upper), value)
