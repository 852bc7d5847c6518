"""Principal components: as few directions as keep the asked share of the variance."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scanloop.embedding.blocks import in_order, workers
from scanloop.types import Float, Vectors


@dataclass(frozen=True)
class Projection:
    """A fitted projection.

    Attributes:
        mean: (d,) mean of the vectors that it was fitted on.
        components: (c, d) orthonormal rows, by falling variance; the largest entry of each is positive.
        explained: (c,) share of the variance of each component; sums to at least the asked share.
    """

    mean: Float
    components: Float
    explained: Float

    def __call__(self, vectors: Vectors) -> Float:
        """Coordinates float64 (n, c) of vectors (n, d)."""
        coordinates: Float = (vectors.astype(np.float64) - self.mean) @ self.components.T
        return coordinates


def fit_projection(parts: Iterable[Vectors], variance: float) -> Projection:
    """Projection that keeps a share of the variance (Pearson 1901), at least two components.

    The vectors come in parts, each of which is seen once and let go: only sums stay, float64 (d, d), taken about the
    mean of the first part so that a mean far from zero costs no digits. The components are the eigenvectors of the
    covariance that these sums give.

    Args:
        parts: Each (n_i, d), together n >= 2 rows; on disk, a shard at a time.
        variance: Share of the total variance to keep, 0..1.
    """
    filled = (part for part in parts if len(part))
    first = next(filled)
    shift = first.mean(axis=0, dtype=np.float64)
    rows, total = 0, np.zeros(len(shift))
    scatter = np.zeros((len(shift), len(shift)))
    with workers() as pool:
        for count, part_total, part_scatter in in_order(
            pool, lambda part: _sums(part, shift), itertools.chain([first], filled)
        ):
            rows += count
            total += part_total
            scatter += part_scatter
        offset = total / rows
        values, directions = np.linalg.eigh(scatter / rows - np.outer(offset, offset))
    values, directions = np.maximum(values[::-1], 0)[: min(rows, len(shift))], directions[:, ::-1].T
    shares = values / values.sum() if values.sum() > 0 else np.zeros(len(values))
    kept = min(max(2, int(np.searchsorted(np.cumsum(shares), variance)) + 1), len(shares))
    components = directions[:kept]
    largest = components[np.arange(kept), np.abs(components).argmax(axis=1)]
    return Projection(shift + offset, components * np.where(largest < 0, -1.0, 1.0)[:, None], shares[:kept])


def _sums(part: Vectors, shift: Float) -> tuple[int, Float, Float]:
    """Rows, sum (d,) and scatter (d, d) of a part, about the shift."""
    values = part.astype(np.float64) - shift
    return len(values), values.sum(axis=0), values.T @ values
