"""k-means over a range of k, and the silhouette that chooses among them."""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from scanloop.embedding.blocks import drawn, nearest_centre
from scanloop.triage.silhouette import squared_silhouette
from scanloop.types import Labels, Vectors

MOST_FITTED = 50_000
"""Rows that centres are fitted on, at most; those of more rows lie within their sampling error."""


@dataclass(frozen=True)
class Clustering:
    """The clustering with the best silhouette.

    Attributes:
        labels: (n,) cluster of each row, 0..k-1.
        k: Number of clusters.
        silhouette: Mean silhouette on squared distances by k, -1..1, of all rows.
        euclidean: Mean silhouette on plain distances of a sample of rows at this k, -1..1; None without clusters.
    """

    labels: Labels
    k: int
    silhouette: dict[int, float]
    euclidean: float | None


def cluster(points: Vectors, ks: range, sample: int, seed: int) -> Clustering:
    """k-means for every k, best of ten starts each, chosen by mean silhouette on squared distances.

    Centres are fitted on at most `MOST_FITTED` rows, drawn by seed; every row gets the nearest.

    Args:
        points: (n, c), n > 2.
        ks: Numbers of clusters to try; those not below n are left out.
        sample: Most rows behind the silhouette on plain distances, which costs their square and chooses nothing.
        seed: Seed of the starts and of the samples.
    """
    silhouette, labellings = {}, {}
    fitted = points[drawn(len(points), MOST_FITTED, seed)]
    for k in (k for k in ks if k < len(fitted)):
        with threadpool_limits(1):  # threads would add centroids in any order
            centres = KMeans(k, n_init=10, random_state=seed).fit(fitted).cluster_centers_
        labels = nearest_centre(points, centres.astype(np.float64))
        if len(np.unique(labels)) > 1:
            silhouette[k], labellings[k] = float(squared_silhouette(points, labels, k).mean()), labels
    if not silhouette:
        return Clustering(np.zeros(len(points), dtype=np.int64), 1, {}, None)
    best = max(silhouette, key=lambda k: silhouette[k])
    rows = drawn(len(points), sample, seed)
    return Clustering(labellings[best], best, silhouette, _euclidean(points[rows], labellings[best][rows]))


def _euclidean(points: Vectors, labels: Labels) -> float | None:
    """Mean silhouette on plain distances; None where the rows lie in one cluster or each in its own."""
    if not 1 < len(np.unique(labels)) < len(labels):
        return None
    with threadpool_limits(1):
        return float(silhouette_score(points, labels))
