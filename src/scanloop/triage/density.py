"""DBSCAN: clusters as dense regions, their number found, and slices that belong to none called noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanloop.embedding.blocks import blocks, drawn
from scanloop.triage.clusters import MOST_FITTED
from scanloop.types import Float, Labels, Vectors

NOISE = -1


@dataclass(frozen=True)
class Density:
    """A clustering by density.

    Attributes:
        labels: (n,) cluster of each row, 0..k-1, or `NOISE`.
        k: Number of clusters.
        epsilon: Distance within which rows are neighbours.
        noise_share: Share of rows without a cluster, 0..1.
    """

    labels: Labels
    k: int
    epsilon: float
    noise_share: float


@dataclass(frozen=True)
class Graph:
    """The nearest neighbours of each row, itself left out.

    Attributes:
        neighbours: (n, k) rows, nearest first.
        distances: (n, k), ascending.
    """

    neighbours: Labels
    distances: Float


def density_clusters(points: Vectors, min_samples: int, neighbours: int, seed: int) -> Density:
    """DBSCAN with the radius at the knee of the distances to the `min_samples`-th slice, itself counted.

    Fitted on at most `MOST_FITTED` rows; every other row gets the cluster of the nearest core within the radius, which
    is DBSCAN's own rule for a row that is no core. The radius is one of the distances in the data, so some rows are
    cores: never is all noise.

    Args:
        points: (n, c), n > min_samples.
        min_samples: Rows within the radius, itself counted, that make a row a core.
        neighbours: Of each row in the graph; cores are exact from `min_samples` on, chains of them where a dense
            region's neighbours within the radius are more than this may break.
        seed: Of the sample.
    """
    rows = drawn(len(points), MOST_FITTED, seed)
    fitted = points[rows].astype(np.float64)
    min_samples = min(min_samples, len(fitted))
    graph = nearest_neighbours(fitted, fitted, min(max(neighbours, min_samples), len(fitted) - 1), itself=True)
    radius = knee(np.sort(graph.distances[:, min_samples - 2])) if min_samples > 1 else 0.0
    labels = np.full(len(points), NOISE, dtype=np.int64)
    labels[rows], core = dbscan(graph, radius, min_samples)
    rest = np.setdiff1d(np.arange(len(points)), rows)
    cores, owned = fitted[core], labels[rows][core]
    for part in blocks(len(rest)):
        found = nearest_neighbours(points[rest[part]].astype(np.float64), cores, 1)
        labels[rest[part]] = np.where(found.distances[:, 0] <= radius, owned[found.neighbours[:, 0]], NOISE)
    return Density(labels, int(labels.max()) + 1, radius, float((labels == NOISE).mean()))


def knee(ascending: Float) -> float:
    """Value at which an ascending curve turns up: farthest below the chord between its ends (kneedle).

    Satopää et al. 2011 (doi:10.1109/ICDCSW.2011.20), without the smoothing and its sensitivity: the one greatest
    difference is taken.

    >>> knee(np.array([1.0, 1.1, 1.2, 1.3, 5.0, 9.0]))
    1.3
    """
    span = ascending[-1] - ascending[0]
    if len(ascending) < 3 or span <= 0:
        return float(ascending[-1])
    height = (ascending - ascending[0]) / span
    return float(ascending[int((np.linspace(0, 1, len(ascending)) - height).argmax())])


def dbscan(graph: Graph, radius: float, min_samples: int) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Clusters (Ester et al. 1996, KDD) on a graph of nearest neighbours, and which rows are cores.

    Equal to scikit-learn's, numbers included, where the graph holds every neighbour within the radius: clusters are
    numbered by their first core, and a row within reach of several belongs to the first.

    Args:
        graph: Without the rows themselves.
        radius: Distance within which rows are neighbours.
        min_samples: Neighbours, the row itself counted, that make a row a core.

    Returns:
        int64 (n,) cluster or `NOISE`, and bool (n,).
    """
    count = len(graph.neighbours)
    near = graph.distances <= radius
    core: npt.NDArray[np.bool_] = near.sum(axis=1) + 1 >= min_samples
    left = np.repeat(np.arange(count), near.sum(axis=1))
    right = graph.neighbours[near]
    joined = core[left] & core[right]
    links = coo_array((np.ones(int(joined.sum()), dtype=bool), (left[joined], right[joined])), shape=(count, count))
    component = connected_components(links, directed=False)[1]
    labels = np.full(count, NOISE, dtype=np.int64)
    cores = np.flatnonzero(core)
    _, first, number = np.unique(component[cores], return_index=True, return_inverse=True)
    labels[cores] = first.argsort().argsort()[number]
    for one, other in ((left, right), (right, left)):  # rows that are no core join the first cluster that reaches them
        reached = core[one] & ~core[other]
        border = np.full(count, count, dtype=np.int64)
        np.minimum.at(border, other[reached], labels[one[reached]])
        better = (border < count) & ((labels == NOISE) | (border < labels)) & ~core
        labels[better] = border[better]
    return labels, core


def nearest_neighbours(queries: Float, points: Float, count: int, *, itself: bool = False) -> Graph:
    """Nearest neighbours: found by FAISS among all points, their distances computed anew in float64.

    Args:
        queries: (n, d).
        points: (m, d).
        count: Neighbours of each query, at most m.
        itself: Whether queries are the points, each of which is left out of its own neighbours; `count` below m then.
    """
    import faiss

    asked = count + itself
    parts = []
    for rows in blocks(len(queries)):
        part = queries[rows]
        _, nearest = faiss.knn(part.astype(np.float32), points.astype(np.float32), asked)
        distances = np.linalg.norm(points[nearest] - part[:, None], axis=2)
        if itself:
            distances[nearest == np.arange(rows.start, rows.stop)[:, None]] = -1.0
        order = np.lexsort((nearest, distances), axis=1)[:, int(itself) :]
        distances = np.maximum(np.take_along_axis(distances, order, 1), 0.0)
        parts.append((np.take_along_axis(nearest, order, 1), distances))
    neighbours, lengths = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return Graph(neighbours.astype(np.int64), lengths.astype(np.float64))
