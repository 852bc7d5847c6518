"""Thresholds chosen on images that do not judge, and what they give on those that do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scanloop.evaluation.intervals import exact_bounds
from scanloop.sections.promotion import OperatingPointsConfig
from scanloop.types import Float, Groups, Interval

Flags: TypeAlias = npt.NDArray[np.bool_]
"""(n,) bool."""


@dataclass(frozen=True)
class Scored:
    """Images with the score of the positive class.

    Attributes:
        scores: (n,) in 0..1.
        positive: (n,) bool, whether an image is of the class.
        groups: (n,) group of each image.
        folds: (n,) what an image was held out in; None where all judge one model.
    """

    scores: Float
    positive: Flags
    groups: Groups
    folds: Groups | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with what it gives.

    Attributes:
        target: "tpr" or "fpr".
        aimed_at: The rate that was aimed at.
        threshold: An image is called positive from this score on.
        chosen_on: Where the threshold comes from: "validation" or "out_of_fold".
        chosen_n: Images that chose it.
        tpr: Share of the positive images that are found.
        fpr: Share of the others that are called positive.
        ppv: Share of those called positive that are, at the hold-out's prevalence.
        npv: Share of those called negative that are, at the hold-out's prevalence.
        prevalence: Share of positive images in the hold-out.
        elsewhere: "prevalence", "ppv" and "npv" at the stated prevalence; None where none is stated.
    """

    target: str
    aimed_at: float
    threshold: float
    chosen_on: str
    chosen_n: int
    tpr: Interval
    fpr: Interval
    ppv: Interval
    npv: Interval
    prevalence: float
    elsewhere: dict[str, Interval | float] | None


def threshold_for(target: str, rate: float, scores: Float, positive: Flags) -> float:
    """Largest threshold of at least this true-positive rate ("tpr"), or smallest of at most this false-positive rate.

    It lies midway to the next score, so that rounding cannot tip an image over.

    >>> threshold_for("tpr", 0.5, np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True]))
    0.75
    """
    order = np.unique(scores)
    above = (order[-1] + 1) / 2 if order[-1] < 1 else np.nextafter(1, 2)
    edges = np.r_[order[0] / 2, (order[1:] + order[:-1]) / 2, above]
    ranked = np.sort(scores[positive if target == "tpr" else ~positive])
    reached = 1 - np.searchsorted(ranked, edges, side="left") / len(ranked)
    if target == "tpr":
        return float(edges[np.flatnonzero(reached >= rate - 1e-12)[-1]])
    return float(edges[np.flatnonzero(reached <= rate + 1e-12)[0]])


def operating_points(
    chosen: Scored, judged: Scored, chosen_on: str, config: OperatingPointsConfig
) -> list[OperatingPoint]:
    """Every target's threshold, and its rates on the hold-out.

    Where the same out-of-fold images choose and judge, the images of each fold are judged at a threshold that the other
    folds chose; the threshold that is told is that of all.

    Args:
        chosen: Images that choose; their groups are not among the judges, but for the case above.
        judged: Images that judge.
        chosen_on: Name of the former.
        config: Targets and the prevalence elsewhere.

    Returns:
        Empty where either side lacks one of the two kinds of images.
    """
    if any(not side.positive.any() or side.positive.all() for side in (chosen, judged)):
        return []
    targets = [("tpr", rate) for rate in config.target_tpr] + [("fpr", rate) for rate in config.target_fpr]
    return [_point(target, rate, chosen, judged, chosen_on, config) for target, rate in targets]


def clustered_proportion(right: Flags, groups: Groups, confidence: float) -> Interval:
    """Clopper-Pearson interval of a share at the effective sample size (Korn and Graubard 1998).

    Images of one group agree more than chance has it: n is divided by what that adds to the variance (design effect, at
    least 1). Where all agree it is the number of groups. With one image a group it is the exact interval.

    Args:
        right: (n,) bool.
        groups: (n,) group of each image.
        confidence: Coverage.

    Returns:
        The bounds 0 and 1, method "undefined", where there is no image.
    """
    n = len(right)
    if not n:
        return Interval(float("nan"), 0.0, 1.0, 0, 0, confidence, "undefined")
    _, index = np.unique(groups, return_inverse=True)
    count, share = int(index.max()) + 1, float(right.mean())
    effective = float(n)
    if count < n:
        effective = float(count)
        if 0 < share < 1 and count > 1:
            sums = np.bincount(index, right - share)
            variance = float((sums**2).sum()) / n**2 * count / (count - 1)
            effective = min(float(n), share * (1 - share) / variance) if variance > 0 else float(count)
    low, high = exact_bounds(share * effective, effective, (1 - confidence) / 2)
    return Interval(share, low, high, n, count, confidence, "exact")


def rates(called: Flags, judged: Scored, confidence: float) -> tuple[Interval, Interval, Interval, Interval]:
    """TPR, FPR, PPV and NPV of images that are called positive or not; the shares and intervals of an operating point.

    Args:
        called: (n,) whether an image is called positive.
        judged: The n images.
        confidence: Coverage of the intervals.
    """

    def share(of: Flags, right: Flags) -> Interval:
        return clustered_proportion(right[of], judged.groups[of], confidence)

    positive = judged.positive
    return share(positive, called), share(~positive, called), share(called, positive), share(~called, ~positive)


def predictive_values(tpr: Interval, fpr: Interval, prevalence: float) -> tuple[Interval, Interval]:
    """PPV and NPV at another prevalence, by Bayes' rule.

    Their bounds take both rates at their worse and at their better ends, so they cover at least what both intervals do
    together.
    """

    def ppv(found: float, called: float) -> float:
        total = found * prevalence + called * (1 - prevalence)
        return found * prevalence / total if total > 0 else float("nan")

    def npv(found: float, called: float) -> float:
        total = (1 - called) * (1 - prevalence) + (1 - found) * prevalence
        return (1 - called) * (1 - prevalence) / total if total > 0 else float("nan")

    both = []
    for rule in (ppv, npv):
        values = rule(tpr.value, fpr.value), rule(tpr.low, fpr.high), rule(tpr.high, fpr.low)
        low, high = (values[1] if np.isfinite(values[1]) else 0.0), (values[2] if np.isfinite(values[2]) else 1.0)
        n, groups = tpr.n + fpr.n, tpr.groups + fpr.groups
        both.append(Interval(values[0], low, high, n, groups, tpr.confidence, "exact"))
    return both[0], both[1]


def _point(
    target: str, rate: float, chosen: Scored, judged: Scored, chosen_on: str, config: OperatingPointsConfig
) -> OperatingPoint:
    threshold = threshold_for(target, rate, chosen.scores, chosen.positive)
    called = judged.scores >= threshold
    if judged.folds is not None:
        called = _by_other_folds(target, rate, judged)
    tpr, fpr, ppv, npv = rates(called, judged, config.confidence)
    elsewhere: dict[str, Interval | float] | None = None
    if config.prevalence is not None:
        both = predictive_values(tpr, fpr, config.prevalence)
        elsewhere = {"prevalence": config.prevalence, "ppv": both[0], "npv": both[1]}
    return OperatingPoint(
        target, rate, threshold, chosen_on, len(chosen.scores), tpr, fpr, ppv, npv, float(judged.positive.mean()),
        elsewhere,
    )  # fmt: skip


def _by_other_folds(target: str, rate: float, judged: Scored) -> Flags:
    """Whether each image is called positive at the threshold of the folds that it was not held out in."""
    called = np.zeros(len(judged.scores), dtype=bool)
    assert judged.folds is not None
    for fold in np.unique(judged.folds):
        inside = judged.folds == fold
        rest = judged.positive[~inside]
        if rest.any() and not rest.all():
            called[inside] = judged.scores[inside] >= threshold_for(target, rate, judged.scores[~inside], rest)
        else:
            called[inside] = judged.scores[inside] >= threshold_for(target, rate, judged.scores, judged.positive)
    return called


def scored(
    probabilities: Float, labels: Sequence[str], groups: Sequence[str], classes: Sequence[str], positive: str,
    folds: Sequence[int] | None = None,
) -> Scored:  # fmt: skip
    """Scores of the positive class.

    Args:
        probabilities: (n, classes).
        labels: (n,) names of the true classes.
        groups: (n,) group of each image.
        classes: Names, in the order of the probabilities.
        positive: The positive class.
        folds: (n,) fold of each image, where they are out of fold.
    """
    scores = np.asarray(probabilities, dtype=np.float64)[:, list(classes).index(positive)]
    return Scored(
        scores, np.array([label == positive for label in labels], dtype=bool), np.array(groups, dtype=str),
        None if folds is None else np.array(folds),
    )  # fmt: skip
