"""Principal components: as few directions as keep the asked share of the variance."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from scanloop.types import Float, Half


@dataclass(frozen=True)
class Projection:
    """A fitted projection.

    Attributes:
        mean: (d,) mean of the vectors that it was fitted on.
        components: (c, d) orthonormal rows, by falling variance.
        explained: (c,) share of the variance of each component; sums to at least the asked share.
    """

    mean: Float
    components: Float
    explained: Float

    def __call__(self, vectors: Half) -> Float:
        """Coordinates float64 (n, c) of vectors (n, d)."""
        coordinates: Float = (vectors.astype(np.float64) - self.mean) @ self.components.T
        return coordinates


def fit_projection(vectors: Half, variance: float) -> Projection:
    """Projection that keeps a share of the variance (Pearson 1901), at least two components.

    Args:
        vectors: (n, d), n >= 2.
        variance: Share of the total variance to keep, 0..1.
    """
    with threadpool_limits(1):  # one thread adds in one order: the same bits every time
        pca = PCA(svd_solver="full").fit(vectors.astype(np.float64))
    kept = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), variance)) + 1
    kept = min(max(2, kept), len(pca.components_))
    return Projection(pca.mean_, pca.components_[:kept], pca.explained_variance_ratio_[:kept])
