"""Which of several ways to keep, the simplest first: a richer one must be better by more than chance explains."""

from collections.abc import Mapping

import numpy as np

from scanloop.types import Float, Groups


def choose(losses: Mapping[str, Float], groups: Groups, errors: float = 1.0) -> str:
    """Method to keep: each in turn where its mean loss is lower than the kept one's by over so many standard errors.

    Args:
        losses: (n,) losses of the same rows by method, the simplest first.
        groups: (n,) groups of the rows.
        errors: Standard errors of the paired difference between groups.
    """
    kept, *others = losses
    for name in others:
        less, error = paired_gain(losses[kept], losses[name], groups)
        if less > errors * error:
            kept = name
    return kept


def paired_gain(base: Float, other: Float, groups: Groups) -> tuple[float, float]:
    """Mean of `base` - `other`, (n,) each, and its standard error where groups, not rows, are independent."""
    difference = base - other
    mean = float(difference.mean())
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, difference - mean)
    count = len(sums)
    return mean, float(np.sqrt(count / max(1, count - 1) * (sums**2).sum())) / len(difference)
