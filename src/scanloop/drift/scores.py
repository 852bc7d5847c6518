"""How far two samples of a confidence lie apart, and how far chance alone would put them.

The definitions are those of Evidently (0.7), written again in numpy because chance takes hundreds of them; a test
compares the two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scanloop.types import Float, Labels

FEW_VALUES = 20
"""A reference with at most as many distinct values is compared value by value instead of in bins."""

EMPTY_SHARE = 1e-4
"""Share that stands in for an empty bin in PSI, whose logarithm it would not survive."""

LEAST_SPREAD = 1e-3
"""Least standard deviation that the Wasserstein distance is divided by."""


@dataclass(frozen=True)
class PermutationTest:
    """A distance, and what it would be if both samples came from one distribution.

    Attributes:
        score: Distance of the two samples, at least 0.
        chance: Distance that random relabelling exceeds in one of twenty cases.
    """

    score: float
    chance: float


def permutation_test(method: str, reference: Float, current: Float, seed: int, draws: int = 199) -> PermutationTest:
    """Distance of two samples beside its 0.95 quantile under random relabelling.

    PSI and its kin grow with the number of bins over the number of rows, so a small sample reaches any threshold
    without a change. The rows of both samples are thrown together and dealt anew `draws` times.

    - "psi": sum over bins of (r - c) ln(r / c); unbounded.
    - "jensenshannon": root of the Jensen-Shannon divergence in nats; at most sqrt(ln 2).
    - "wasserstein": first Wasserstein distance in standard deviations of the reference.

    Args:
        method: "psi", "jensenshannon" or "wasserstein".
        reference: (n,), for example confidences in 0..1.
        current: (m,).
        seed: Seed of the draws.
        draws: Number of random relabellings.
    """
    rng = np.random.default_rng(seed)
    if method == "wasserstein":
        together = np.concatenate([reference, current])
        order = np.argsort(together, kind="stable")
        values, member = together[order], order < len(reference)
        score = _wasserstein(values, member)
        dealt = [_wasserstein(values, rng.permutation(member)) for _ in range(draws)]
    else:
        distance, counts = BINNED[method], _binned(reference, current)
        both = counts.sum(axis=0)
        hands = rng.multivariate_hypergeometric(both, len(reference), size=draws, method="marginals").astype(np.int64)
        score, *dealt = [distance(hand / len(reference), (both - hand) / len(current)) for hand in (counts[0], *hands)]
    return PermutationTest(score, float(np.quantile(dealt, 0.95, method="higher")))


def _binned(reference: Float, current: Float) -> Labels:
    """Counts, (2, bins): Sturges' bins over both samples, or one bin a value where the reference has few."""
    together = np.concatenate([reference, current])
    if len(np.unique(reference)) > FEW_VALUES:
        edges = np.histogram_bin_edges(together, bins="sturges")
        return np.stack([np.histogram(sample, edges)[0] for sample in (reference, current)]).astype(np.int64)
    values, index = np.unique(together, return_inverse=True)
    parts = np.split(index, [len(reference)])
    return np.stack([np.bincount(part, minlength=len(values)) for part in parts]).astype(np.int64)


def _filled(shares: Float) -> Float:
    least = shares[shares > 0].min()
    return np.where(shares == 0, least / 1e6 if least <= EMPTY_SHARE else EMPTY_SHARE, shares)


def _psi(reference: Float, current: Float) -> float:
    expected, found = _filled(reference), _filled(current)
    return float(np.sum((expected - found) * np.log(expected / found)))


def _jensen_shannon(reference: Float, current: Float) -> float:
    middle = (reference + current) / 2
    divergence = sum(
        np.sum(shares[shares > 0] * np.log(shares[shares > 0] / middle[shares > 0])) for shares in (reference, current)
    )
    return float(np.sqrt(max(divergence / 2, 0.0)))


def _wasserstein(values: Float, in_reference: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Area between the two distribution functions; `values` are sorted."""
    reference = np.cumsum(in_reference)[:-1] / in_reference.sum()
    current = np.cumsum(~in_reference)[:-1] / (~in_reference).sum()
    spread = max(float(np.std(values[in_reference])), LEAST_SPREAD)
    return float(np.sum(np.abs(reference - current) * np.diff(values)) / spread)


BINNED: Mapping[str, Callable[[Float, Float], float]] = {"psi": _psi, "jensenshannon": _jensen_shannon}
