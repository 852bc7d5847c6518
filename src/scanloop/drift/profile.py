"""What a set of predictions looks like: its confidence and how often it says "positive"."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from scanloop.types import Float

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CONFIDENT = 0.8
"""Confidence from which a machine's label may count."""


@dataclass(frozen=True)
class Proportion:
    """A share with its Wilson interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Slices count as independent; those of one patient are not quite, so the true interval is somewhat wider.

    Attributes:
        value: Share, 0..1.
        low: Lower bound.
        high: Upper bound.
        n: Slices behind the share.
        confidence: Coverage that the interval aims at.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Profile:
    """Confidence and predicted prevalence of a set of slices.

    Attributes:
        n: Slices.
        mean: Mean confidence, 0..1; None without slices.
        quantiles: Confidence by quantile, for example "0.5"; empty without slices.
        confident_share: Share with a confidence of at least 0.8; None without slices.
        prevalence: Share predicted positive; None without slices.
    """

    n: int
    mean: float | None
    quantiles: Mapping[str, float]
    confident_share: float | None
    prevalence: Proportion | None


def profile_of(confidence: Float, positive: npt.NDArray[np.bool_]) -> Profile:
    """Profile of a set of predictions.

    Args:
        confidence: (n,), probability of the predicted class, 0..1.
        positive: (n,), whether the predicted class is the positive one.
    """
    if not len(confidence):
        return Profile(0, None, {}, None, None)
    quantiles = {str(share): float(np.quantile(confidence, share)) for share in QUANTILES}
    confident = float(np.mean(confidence >= CONFIDENT))
    prevalence = wilson(int(np.count_nonzero(positive)), len(positive))
    return Profile(len(confidence), float(np.mean(confidence)), quantiles, confident, prevalence)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Proportion:
    """Share of successes with its Wilson interval.

    Args:
        successes: 0..n.
        n: At least 1.
        confidence: Coverage, in (0, 1).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Proportion(share, max(0.0, centre - half), min(1.0, centre + half), n, confidence)
