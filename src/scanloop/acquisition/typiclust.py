"""Typical images of what nobody has labelled: TypiClust (Hacohen et al. 2022, arXiv:2202.02794).

With a handful of labels a head's doubts are noise; what then helps is one label in the middle of each crowd.
"""

import numpy as np

from scanloop.acquisition.clusters import MOST_FITTED, centres_of
from scanloop.acquisition.situation import Situation
from scanloop.embedding.blocks import blocks, drawn, nearest_centre
from scanloop.types import Float, Labels, Single

MOST_CLUSTERS = 500
LEAST_SIZE = 5
"""Images of a cluster that may be chosen from while there are larger ones: a smaller one is an outlier."""

NEIGHBOURS = 20
MOST_COMPARED = 4096
"""Images of a cluster that typicality is measured against, at most, drawn by seed."""


def pick(situation: Situation, count: int) -> Labels:
    """The most typical image of the largest clusters with the fewest labels.

    Labelled and unlabelled images are clustered together, into as many clusters as labels there will be.
    """
    pool = np.flatnonzero(situation.free)
    sample = situation.points(pool[drawn(len(pool), MOST_FITTED, situation.seed)])
    points = np.concatenate([situation.labelled, sample])
    clusters = min(len(situation.labelled) + count, MOST_CLUSTERS, max(2, len(points) // LEAST_SIZE))
    centres = centres_of(points, clusters, situation.seed)
    of_known = np.bincount(nearest_centre(situation.labelled, centres), minlength=len(centres))
    cluster = np.full(len(situation.groups), -1)
    for rows in blocks(len(pool)):
        cluster[pool[rows]] = nearest_centre(situation.points(pool[rows]), centres)
    found: list[int] = []
    while len(found) < count and (cluster >= 0).any():
        size = np.bincount(cluster[cluster >= 0], minlength=len(centres))
        least = LEAST_SIZE if (size >= LEAST_SIZE).any() else 1
        open_ones = np.flatnonzero(size >= least)
        best = open_ones[np.lexsort((-size[open_ones], of_known[open_ones]))[0]]
        members = np.flatnonzero(cluster == best)
        chosen = members[typicality(situation.points(members), situation.seed).argmax()]
        found.append(int(chosen))
        of_known[best] += 1
        cluster[situation.groups == situation.groups[chosen]] = -1
    return np.array(found, dtype=np.int64)


def typicality(points: Single, seed: int) -> Float:
    """Inverse mean distance (n,) of points (n, d) to their 20 nearest among them; of many, among a sample of them."""
    others = points[drawn(len(points), MOST_COMPARED, seed)]
    count = min(NEIGHBOURS + 1, len(others))  # the nearest of all is the point itself
    norms = np.einsum("ij,ij->i", others, others)
    found = np.empty(len(points))
    for rows in blocks(len(points)):
        part = points[rows]
        squares = np.einsum("ij,ij->i", part, part)[:, None] + norms - 2 * part @ others.T
        nearest = np.partition(np.maximum(squares, 0), count - 1, axis=1)[:, :count]
        found[rows] = 1 / np.maximum(np.sqrt(nearest).mean(axis=1), 1e-9)
    return found
