"""Clusters of images, and one image to stand for each."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from scanloop.embedding.blocks import blocks, drawn, nearest_centre
from scanloop.types import Float, Groups, Labels, Single

MOST_FITTED = 50_000
"""Points that centres are fitted on, at most, drawn by seed."""

ROUNDS = 50


def centres_of(points: Single, count: int, seed: int) -> Float:
    """Centres (count, d) of k-means of one start on points (n, d); fewer where the points are fewer."""
    fitted = points[drawn(len(points), MOST_FITTED, seed)]
    with threadpool_limits(1), warnings.catch_warnings():  # threads would add centroids in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal points make fewer clusters than were asked for
        found = KMeans(min(count, len(fitted)), n_init=1, max_iter=ROUNDS, random_state=seed).fit(fitted)
    centres: Float = found.cluster_centers_.astype(np.float64)
    return centres


def representatives(points: Single, groups: Groups, count: int, seed: int) -> Labels:
    """Rows that stand for `count` clusters, that of the largest cluster first: nearest to the centre, one of a group.

    Fewer come back where clusters hold only groups that stand for others already.
    """
    if not len(points) or count <= 0:
        return np.empty(0, dtype=np.int64)
    centres = centres_of(points, count, seed)
    labels = nearest_centre(points, centres)
    distance = np.concatenate([
        np.square(points[rows] - centres[labels[rows]]).sum(axis=1) for rows in blocks(len(points))
    ])  # fmt: skip
    size = np.bincount(labels, minlength=len(centres))
    found: list[int] = []
    served: set[int] = set()
    taken: set[object] = set()
    for row in np.lexsort((distance, labels, -size[labels])):
        if int(labels[row]) not in served and groups[row] not in taken:
            found.append(int(row))
            served.add(int(labels[row]))
            taken.add(groups[row])
    return np.array(found, dtype=np.int64)
