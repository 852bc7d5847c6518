"""Images that differ from each other and from what is labelled already."""

import numpy as np
from scipy.spatial.distance import cdist

from scanloop.types import Float, Groups, Labels


def k_center_greedy(points: Float, covered: Float, groups: Groups, count: int) -> tuple[Labels, Float]:
    """Points picked one by one, each farthest from all before it (Sener and Savarese 2018, arXiv:1708.00489).

    Differs from the paper in taking at most one point a group, since a second image of a patient says little new.

    Args:
        points: (n, d) candidates; unit length makes the distance that of angles.
        covered: (m, d) points that count as picked from the start; may be empty.
        groups: (n,) group of each candidate.
        count: Points to pick, at most; fewer come back when the groups run out.

    Returns:
        Indices of the picked points in the order of picking, and the distance of each to the nearest one before it.
    """
    nearest = np.full(len(points), np.inf)
    for block in np.array_split(covered, max(1, len(covered) // 256)):
        if len(block):
            nearest = np.minimum(nearest, cdist(points, block).min(axis=1))
    if np.isinf(nearest).all() and len(points):
        nearest = np.linalg.norm(points - points.mean(axis=0), axis=1)  # nothing covered: begin far from the middle
    free = np.ones(len(points), dtype=bool)
    picked: list[int] = []
    distances: list[float] = []
    while len(picked) < count and free.any():
        index = int(np.where(free, nearest, -1).argmax())
        picked.append(index)
        distances.append(float(nearest[index]))
        free &= groups != groups[index]
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
    return np.array(picked, dtype=np.int64), np.array(distances)
