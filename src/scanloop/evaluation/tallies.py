"""Macro-F1 of resampled hold-outs from counts alone: groups that look alike are drawn together.

Macro-F1 depends on how many images fall into each cell of the confusion matrices, and most groups fill the same few. So
a resample of the groups is one multinomial draw over the kinds of groups: hundreds of thousands of resamples, which
small error rates need, in the time of a few.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.optimize import brentq

from scanloop.evaluation.intervals import BLOCK_CELLS, bca_bounds
from scanloop.types import Float, Groups, Labels

Statistic: TypeAlias = Callable[[Float], Float]
"""From counts (resamples, cells) to one value a resample, (resamples,); NaN where it is undefined."""

STEEPEST = 700.0
"""Most that a tilt's exponent may reach: beyond it floats end."""


@dataclass(frozen=True)
class Tally:
    """What groups add to the counts.

    Attributes:
        kinds: (kinds, cells) counts of a group of each kind: the confusion matrix of each model, one after another.
        times: (kinds,) groups of each kind.
        classes: Number of classes.
    """

    kinds: Float
    times: Labels
    classes: int

    @property
    def groups(self) -> int:
        """Independent groups."""
        return int(self.times.sum())

    @property
    def total(self) -> Float:
        """Counts of the whole hold-out, (1, cells)."""
        whole: Float = (self.times @ self.kinds)[None]
        return whole


def tally(labels: Labels, groups: Groups, predicted: Sequence[Labels], classes: int) -> Tally:
    """Counts of one model, or of several on the same images.

    Args:
        labels: (n,) true class indices.
        groups: (n,) group of each image.
        predicted: Predicted class indices (n,), one array a model.
        classes: Number of classes.
    """
    cells, rows = classes * classes, np.arange(len(labels))
    image = np.zeros((len(labels), cells * len(predicted)))
    for model, said in enumerate(predicted):
        image[rows, model * cells + labels * classes + said] = 1
    names, index = np.unique(groups, return_inverse=True)
    group = np.zeros((len(names), image.shape[1]))
    np.add.at(group, index, image)
    kinds, times = np.unique(group, axis=0, return_counts=True)
    return Tally(kinds, times.astype(np.int64), classes)


def f1_of(counts: Float, classes: int) -> Float:
    """Macro-F1 of confusion matrices (resamples, classes * classes), as `metrics.macro_f1` defines it."""
    matrix = counts.reshape(len(counts), classes, classes)
    both = matrix.sum(axis=2) + matrix.sum(axis=1)
    f1 = 2 * np.diagonal(matrix, axis1=1, axis2=2) / np.where(both > 0, both, 1)
    mean: Float = f1.sum(axis=1) / (both > 0).sum(axis=1)
    return mean


def macro_f1(found: Tally) -> Statistic:
    """Macro-F1 of the first model; NaN where a resample lost a class that the hold-out has."""
    cells, classes = found.classes**2, found.classes

    def statistic(counts: Float) -> Float:
        return np.where(_lost(counts, found), np.nan, f1_of(counts[:, :cells], classes))

    return statistic


def macro_f1_difference(found: Tally) -> Statistic:
    """Macro-F1 of the first model minus that of the second; NaN as above."""
    cells, classes = found.classes**2, found.classes

    def statistic(counts: Float) -> Float:
        difference = f1_of(counts[:, :cells], classes) - f1_of(counts[:, cells : 2 * cells], classes)
        return np.where(_lost(counts, found), np.nan, difference)

    return statistic


def lower_bound(found: Tally, statistic: Statistic, tail: float, seed: int) -> float:
    """One-sided lower bound by the BCa bootstrap of whole groups (Efron 1987, doi:10.1080/01621459.1987.10478410).

    Args:
        found: Counts of the hold-out.
        statistic: What is bounded.
        tail: One-sided error rate, in (0, 0.5).
        seed: Seed of the draws.

    Returns:
        Where no resample differs, the value less the error rate that so many groups may hide: 1 - tail^(1/groups).
    """
    value = float(statistic(found.total)[0])
    drawn = _resampled(found, found.times / found.groups, statistic, _resamples(tail), seed)
    if drawn.max() - drawn.min() < 1e-9:
        return float(value - (1 - tail ** (1 / found.groups)))
    without = statistic(found.total - found.kinds)
    spread = np.repeat(without, found.times)
    return bca_bounds(value, drawn, spread[np.isfinite(spread)], 1 - 2 * tail)[0]


def tilted_p_value(found: Tally, statistic: Statistic, bound: float, tail: float, seed: int) -> float:
    """How often a hold-out would look this good, if the truth were only just as bad as the bound.

    Resamples are drawn from the groups at hand, reweighted by an exponential tilt so that the statistic is the bound
    (Efron 1981, doi:10.2307/3314608). Unlike an interval's resamples these come from where the null hypothesis holds;
    with few disagreements that matters: an interval around "two losses in 300" is too narrow, as two is its centre.

    What was not seen could not be drawn. So one group is added on which the model loses where a loss costs most; with
    no loss the result is then what the binomial distribution says of none in n.

    Args:
        found: Counts, of independent images: one a group.
        statistic: Function of the counts that falls as the model errs.
        bound: Value under the null hypothesis.
        tail: Error rate that the result will be held against: the smaller, the more resamples.
        seed: Seed of the draws.

    Returns:
        (0, 1]; 1 where the value is not above the bound, or no weights reach it.
    """
    value = float(statistic(found.total)[0])
    if not value > bound:
        return 1.0
    seen = _with_a_loss(found, statistic)
    slopes = _slopes(seen, statistic)

    def shares(tilt: float) -> Float:
        weights = seen.times * np.exp(tilt * slopes)
        scaled: Float = weights / weights.sum()
        return scaled

    def above(tilt: float) -> float:
        return float(statistic((found.groups * shares(tilt) @ seen.kinds)[None])[0]) - bound

    tilt = -1.0
    while above(tilt) > 0:
        tilt *= 2
        if tilt < -STEEPEST:
            return 1.0
    tilt = 0.0 if above(0.0) <= 0 else float(brentq(above, tilt, 0.0, xtol=1e-6))
    drawn = _resampled(seen, shares(tilt), statistic, _resamples(tail), seed, found.groups)
    return float(((drawn >= value - 1e-12).sum() + 1) / (len(drawn) + 1))


def _with_a_loss(found: Tally, statistic: Statistic) -> Tally:
    """The tally with one group more: the single image, right before, whose loss by the first model costs most."""
    classes, cells = found.classes, found.classes**2
    total, present = found.total, np.flatnonzero(found.total[0, :cells].reshape(classes, classes).sum(axis=1))
    right = np.eye(classes, dtype=bool)
    candidates = []
    for label in present:
        for said in np.flatnonzero(~right[label]):
            image = np.zeros(found.kinds.shape[1])
            image[label * classes + said] = 1
            if len(image) > cells:
                image[cells + label * classes + label] = 1
            candidates.append(image)
    worst = candidates[int(np.argmin([statistic(total + image)[0] for image in candidates]))]
    return Tally(np.vstack([found.kinds, worst]), np.append(found.times, 1), classes)


def _slopes(found: Tally, statistic: Statistic) -> Float:
    """What a group of each kind adds to the statistic (kinds,), scaled so that the largest is 1."""
    total = found.total
    step = 1e-4
    change = statistic(total + step * found.kinds) - statistic(total)
    change = change - (found.times * change).sum() / found.groups
    largest = float(np.abs(change).max())
    scaled: Float = change / largest if largest > 0 else change
    return scaled


def _resampled(
    found: Tally, shares: Float, statistic: Statistic, resamples: int, seed: int, groups: int | None = None
) -> Float:
    """Statistic of each resample (resamples,), without those on which it is undefined."""
    generator = np.random.default_rng(seed)
    most = max(1, BLOCK_CELLS // len(found.kinds))
    values = []
    for start in range(0, resamples, most):
        drawn = generator.multinomial(groups or found.groups, shares, size=min(most, resamples - start))
        values.append(statistic(drawn @ found.kinds))
    whole = np.concatenate(values)
    finite: Float = whole[np.isfinite(whole)]
    return finite


def _resamples(tail: float) -> int:
    """Enough that some twenty lie beyond the bound."""
    return int(min(max(2000, np.ceil(20 / tail)), 200_000))


def _lost(counts: Float, found: Tally) -> Labels:
    """Whether a class that the hold-out has is missing, (resamples,) bool."""
    classes = found.classes
    present = found.total[0, : classes**2].reshape(classes, classes).sum(axis=1) > 0
    true = counts[:, : classes**2].reshape(len(counts), classes, classes).sum(axis=2)
    missing: Labels = (true[:, present] <= 0).any(axis=1)
    return missing
