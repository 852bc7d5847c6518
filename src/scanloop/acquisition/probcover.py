"""Images whose neighbourhoods cover most of the pool: ProbCover (Yehuda et al. 2022, arXiv:2205.11320)."""

import numpy as np

from scanloop.acquisition.clusters import centres_of
from scanloop.acquisition.situation import Situation
from scanloop.embedding.blocks import blocks, drawn, nearest_centre
from scanloop.types import Labels, Single

MOST_POINTS = 10_000
"""Points of the graph, at most, drawn by seed: it has their square in bits of memory and choices among them alone."""

PURITY = 0.95
"""Least share of balls that lie in one cluster, which sets their radius; clusters stand in for unknown classes."""

RADII = np.linspace(0.02, 1.2, 60)
JUDGED = 1000
"""Balls whose purity is looked at, at most."""


def pick(situation: Situation, count: int) -> Labels:
    """Images picked one by one, each covering most of what is not covered yet; the rest at random, if all is."""
    free_rows = np.flatnonzero(situation.free)
    pool = free_rows[drawn(len(free_rows), MOST_POINTS, situation.seed)]
    points, groups = situation.points(pool), situation.groups[pool]
    if not len(pool):
        return pool
    cosine = 1 - radius(points, situation.classes, situation.seed) ** 2 / 2
    near = np.concatenate([points[rows] @ points.T >= cosine for rows in blocks(len(points))])
    uncovered = np.ones(len(points), dtype=bool)
    for rows in blocks(len(situation.labelled)):
        uncovered &= ~(situation.labelled[rows] @ points.T >= cosine).any(axis=0)
    gain = near[:, uncovered].sum(axis=1)
    free = np.ones(len(points), dtype=bool)
    found: list[int] = []
    while len(found) < count:
        best = int(np.where(free, gain, -1).argmax())
        if not free[best] or gain[best] <= 0:
            break
        found.append(best)
        new = np.flatnonzero(near[best] & uncovered)
        gain -= near[:, new].sum(axis=1)
        uncovered[new] = False
        free &= groups != groups[best]
    chosen = pool[np.array(found, dtype=np.int64)]
    rest = np.random.default_rng(situation.seed).permutation(len(situation.groups))
    return situation.first(np.concatenate([chosen, rest]), count)


def radius(points: Single, classes: int, seed: int) -> float:
    """Largest radius at which most balls around points (n, d) hold points of one cluster only."""
    labels = nearest_centre(points, centres_of(points, classes, seed))
    judged = drawn(len(points), JUDGED, seed)
    squares = np.maximum(2 - 2 * points[judged] @ points.T, 0)
    foreign = np.where(labels[judged][:, None] != labels, squares, np.inf).min(axis=1)
    pure = [value for value in RADII if (foreign > value**2).mean() >= PURITY]
    return float(max(pure, default=RADII[0]))
