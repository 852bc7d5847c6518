"""How distinct clusters are: the silhouette on squared distances, exact over all rows in linear time."""

from dataclasses import dataclass

import numpy as np

from scanloop.embedding.blocks import BLOCK_ROWS, blocks, in_order, workers
from scanloop.types import Float, Labels, Vectors


def squared_silhouette(points: Vectors, labels: Labels, k: int) -> Float:
    """Silhouette of each row (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7) on SQUARED Euclidean distances.

    The mean squared distance of a point x to a cluster C is |x|² - 2 x·mean(C) + mean|y|² over y in C, so nothing
    compares pairs: O(n k d) instead of O(n² d), and exact. With a the mean over the other members of the own cluster
    (the mean over all of it, times n/(n-1)) and b the smallest mean over another cluster, the silhouette is
    (b - a) / max(a, b). It equals scikit-learn's with `metric="sqeuclidean"`. It is NOT the usual silhouette, on
    plain distances: the squares spread a and b apart, so its values are as a rule larger in size, and the customary
    bounds (0.25, 0.5, 0.7) don't hold for it.

    Args:
        points: (n, d), any float type; summed in float64.
        labels: (n,) cluster of each row, 0..k-1.
        k: Number of clusters; empty ones don't count.

    Returns:
        float64 (n,), range -1..1; 0 for a row alone in its cluster, and where only one cluster has rows.
    """
    if not len(points):
        return np.empty(0)
    shift = points[0].astype(np.float64)  # exact zeros where all rows are equal, and less cancellation
    sums, squares = np.zeros((k, points.shape[1])), np.zeros(k)
    norms: list[Float] = []

    def scores(rows: slice) -> Float:
        products = points[rows].astype(np.float64) @ clusters.means.T - shift @ clusters.means.T
        return _scores(products, norms[rows.start // BLOCK_ROWS], labels[rows], clusters)

    with workers() as pool:
        parts = in_order(pool, lambda rows: _sums(points[rows] - shift, labels[rows], k), blocks(len(points)))
        for part_sums, part_norms, part_squares in parts:
            sums += part_sums
            squares += part_squares
            norms.append(part_norms)
        sizes = np.bincount(labels, minlength=k)
        clusters = _Clusters(sizes, sums / np.maximum(sizes, 1)[:, None], squares / np.maximum(sizes, 1))
        return np.concatenate(list(in_order(pool, scores, blocks(len(points)))))


@dataclass(frozen=True)
class _Clusters:
    """Rows of each cluster (k,), their mean (k, d) and the mean of their squared norms (k,)."""

    sizes: Labels
    means: Float
    mean_squares: Float


def _sums(values: Float, labels: Labels, k: int) -> tuple[Float, Float, Float]:
    """Sum (k, d) of the rows of each cluster, the squared norm of each row, and the sum (k,) of these."""
    member = (labels == np.arange(k)[:, None]).astype(np.float64)
    norms = np.einsum("ij,ij->i", values, values)
    return member @ values, norms, member @ norms


def _scores(products: Float, norms: Float, labels: Labels, clusters: _Clusters) -> Float:
    """Silhouettes of rows, from their products (n, k) with the means and their squared norms (n,)."""
    distances = np.maximum(norms[:, None] - 2 * products + clusters.mean_squares, 0)
    distances[:, clusters.sizes == 0] = np.inf
    rows, own = np.arange(len(labels)), clusters.sizes[labels]
    inside = distances[rows, labels] * own / np.maximum(own - 1, 1)
    distances[rows, labels] = np.inf
    outside = distances.min(axis=1)
    larger = np.maximum(inside, outside)
    defined = (own > 1) & np.isfinite(outside) & (larger > 0)
    silhouette: Float = np.where(defined, (np.where(defined, outside, 0) - inside) / np.where(defined, larger, 1), 0.0)
    return silhouette
