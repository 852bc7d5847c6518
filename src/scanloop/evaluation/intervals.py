"""Confidence intervals: bootstrapped by group, exact where nothing varies.

Images of one patient, and near-duplicates, are not independent; a bootstrap over images would promise too much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from scanloop.types import Float, Groups, Interval

Statistic: TypeAlias = Callable[[Float], Float]
"""From weights (resamples, n) - how often each row was drawn - to one value a resample, (resamples,)."""

BLOCK_CELLS = 4_000_000
"""Most weights held at once: 32 MB, however many images and resamples there are."""

JACKKNIFE_UNITS = 1000
"""Most parts left out in turn: groups beyond that are left out several at a time."""


@dataclass(frozen=True)
class Resampling:
    """How an interval is computed.

    Attributes:
        resamples: Resamples of the groups, at least 100.
        confidence: Coverage aimed at, in (0, 1).
        seed: Seed of the draws. The same seed and groups give the same resamples, so that two arms are comparable.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


def bootstrap_interval(statistic: Statistic, groups: Groups, plan: Resampling | None = None) -> Interval:
    """Bias-corrected and accelerated interval over resamples of whole groups.

    Groups are drawn with replacement, with all their rows (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).
    BCa (Efron 1987, doi:10.1080/01621459.1987.10478410) rather than percentiles: shares near 1 are skewed, there the
    percentile interval starts too high, and the lower end is what a gate decides on. Resamples on which the
    statistic is NaN are left out; a difference of two arms is one statistic, so both see the same resamples.

    Args:
        statistic: Value of each resample from the weights of its rows, (resamples, n).
        groups: (n,) group of each row.
        plan: Resamples, confidence and seed.

    Returns:
        Bounds that equal the value where no resample differs: such an interval says nothing, and callers must replace
        it (`scanloop.evaluation.comparison` does). NaN bounds and method "undefined" where the statistic is NaN.
    """
    plan = plan or Resampling()
    index, count = group_index(groups)
    value = float(statistic(np.ones((1, len(index))))[0])
    replicates = replicate(statistic, groups, plan)
    replicates = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or not len(replicates):
        return Interval(value, np.nan, np.nan, len(index), count, plan.confidence, "undefined")
    low, high = bca_bounds(value, replicates, _jackknife(statistic, index, count), plan.confidence)
    return Interval(value, low, high, len(index), count, plan.confidence)


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Clopper-Pearson interval of a proportion (1934, doi:10.1093/biomet/26.4.404): its coverage never falls short.

    >>> interval = exact_interval(5, 5)
    >>> round(interval.low, 3), interval.high
    (0.478, 1.0)
    """
    low, high = exact_bounds(successes, trials, (1 - confidence) / 2)
    return Interval(successes / trials, low, high, trials, trials, confidence, "exact")


def exact_bounds(successes: float, trials: float, tail: float) -> tuple[float, float]:
    """Clopper-Pearson bounds of a proportion, each with this error rate; sizes may be effective ones, not whole."""
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


def replicate(statistic: Callable[[Float], Float], groups: Groups, plan: Resampling) -> Float:
    """Statistic of every resample, (resamples, ...); NaN where it is undefined."""
    index, count = group_index(groups)
    generator = np.random.default_rng(plan.seed)

    def blocks() -> Iterator[Float]:
        done, most = 0, max(1, BLOCK_CELLS // max(count, len(index)))
        while done < plan.resamples:
            rows = min(most, plan.resamples - done)
            drawn = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
            yield statistic(times[:, index].astype(np.float64))
            done += rows

    return np.concatenate(list(blocks()))


def group_index(groups: Groups) -> tuple[Groups, int]:
    """Number of each row's group, (n,), counted from 0 in order of name, and how many groups there are."""
    names, index = np.unique(groups, return_inverse=True)
    return index, len(names)


def _jackknife(statistic: Statistic, index: Groups, count: int) -> Float:
    """Statistic without each group in turn, (units,); many groups are left out several at a time."""
    units = min(count, JACKKNIFE_UNITS)
    unit = index % units
    step = max(1, BLOCK_CELLS // len(index))
    parts = [np.arange(start, min(start + step, units)) for start in range(0, units, step)]
    if units < 2:
        return np.zeros(0)
    values = np.concatenate([statistic((unit[None, :] != part[:, None]).astype(np.float64)) for part in parts])
    finite: Float = values[np.isfinite(values)]
    return finite


def bca_bounds(value: float, replicates: Float, jackknife: Float, confidence: float) -> tuple[float, float]:
    """Efron's interval; the bias stays finite where all replicates lie on one side of the value."""
    below = ((replicates < value).mean() + (replicates <= value).mean()) / 2
    edge = 0.5 / len(replicates)
    bias = ndtri(np.clip(below, edge, 1 - edge))
    spread = jackknife.mean() - jackknife if len(jackknife) else np.zeros(1)
    square = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    tails = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shares = ndtr(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    low, high = np.quantile(replicates, shares)
    return float(low), float(high)
