"""Bounds that hold at any n, where resampling what was seen cannot show what was not."""

import numpy as np
from scipy.special import ndtri

from scanloop.evaluation.intervals import exact_interval
from scanloop.evaluation.judged import Judged
from scanloop.types import Interval


def f1_lower_bound(judged: Judged, tail: float, seed: int) -> float:
    """Lower bound of macro-F1 from exact bounds of every class's precision and recall.

    F1 of a class is the harmonic mean of its recall and precision, each a proportion with a Clopper-Pearson bound
    (1934, doi:10.1093/biomet/26.4.404) on one image of each group. All hold at once with the error rate that is asked
    for, since each gets its share of it (Bonferroni); their mean over the classes is then a bound, and a loose one.

    Args:
        judged: Images with their labels and probabilities.
        tail: One-sided error rate.
        seed: Seed that draws one image of each group.

    Returns:
        In 0..1; a class without images counts 0 where it is predicted, and is left out where it is not.
    """
    one = judged.one_a_group(seed)
    said = one.probabilities.argmax(axis=1)
    occurring = np.union1d(one.labels, said)
    each = 1 - 2 * tail / (2 * len(occurring))
    bounds = []
    for label in occurring:
        right = int(((said == label) & (one.labels == label)).sum())
        low = [exact_interval(right, int(total), each).low if total else 0.0
               for total in ((one.labels == label).sum(), (said == label).sum())]  # fmt: skip
        bounds.append(2 * low[0] * low[1] / sum(low) if all(low) else 0.0)
    return float(np.mean(bounds))


def at_tail(interval: Interval, tail: float) -> float:
    """Lower bound of an interval at another one-sided error rate, where what it was computed from is not at hand.

    The distance from value to bound grows as the normal quantile does; that of an exact interval, which is that of
    events too rare to be seen, as the logarithm of the error rate does. A larger error rate than the interval's changes
    nothing.

    >>> round(at_tail(Interval(0.95, 0.9, 0.98, 200, 200), 0.0125), 3)
    0.893
    """
    at_hand = (1 - interval.confidence) / 2
    if tail >= at_hand * (1 - 1e-9):
        return interval.low
    ratio = np.log(tail) / np.log(at_hand) if interval.method == "exact" else ndtri(tail) / ndtri(at_hand)
    return float(interval.value - (interval.value - interval.low) * ratio)
