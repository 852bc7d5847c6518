"""k-means over a range of k, and the silhouette that chooses among them."""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Clustering:
    """The clustering with the best silhouette.

    Attributes:
        labels: (n,) cluster of each row, 0..k-1.
        k: Number of clusters.
        silhouette: Mean silhouette by k, -1..1; at most `sample` rows behind each.
    """

    labels: Labels
    k: int
    silhouette: dict[int, float]


def cluster(points: Float, ks: range, sample: int, seed: int) -> Clustering:
    """k-means for every k, best of ten starts each, chosen by mean silhouette (Rousseeuw 1987).

    Args:
        points: (n, c), n > 2.
        ks: Numbers of clusters to try; those not below n are left out.
        sample: Most rows behind a silhouette, which costs their square.
        seed: Seed of the starts and of the sample.
    """
    rows = np.arange(len(points))
    if len(points) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(len(points), sample, replace=False))
    silhouette, labellings = {}, {}
    for k in (k for k in ks if k < len(rows)):
        with threadpool_limits(1):  # threads would add centroids in any order
            labels = KMeans(k, n_init=10, random_state=seed).fit_predict(points).astype(np.int64)
        if len(np.unique(labels[rows])) > 1:
            silhouette[k], labellings[k] = float(silhouette_score(points[rows], labels[rows])), labels
    if not silhouette:
        return Clustering(np.zeros(len(points), dtype=np.int64), 1, {})
    best = max(silhouette, key=lambda k: silhouette[k])
    return Clustering(labellings[best], best, silhouette)
