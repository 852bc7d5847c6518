"""Images that differ from each other and from what is labelled already."""

import numpy as np
import pandas as pd

from scanloop.acquisition.situation import Situation
from scanloop.embedding.blocks import Workers, blocks, in_order, workers
from scanloop.types import Float, Groups, Labels, Single, Vectors

LOOK_AHEAD = 1024
"""Farthest candidates among which picks are made before all others hear of them."""

CENTRES_A_BLOCK = 512
"""Centres that a block of points is compared with at a time."""


def pick(situation: Situation, count: int) -> Labels:
    """The images that leave none far from what is labelled or picked."""
    rows = np.flatnonzero(situation.free)
    found, _ = k_center_greedy(situation.points(rows), situation.labelled, situation.groups[rows], count)
    return rows[found]


def k_center_greedy(points: Vectors, covered: Vectors, groups: Groups, count: int) -> tuple[Labels, Float]:
    """Points picked one by one, each farthest from all before it (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5).

    Sener and Savarese 2018 (arXiv:1708.00489) choose what to label so. Differs in taking at most one point a group,
    since a second image of a patient says little new, and in when distances are computed: a point's distance to what
    is picked only falls, so an old one bounds the new one from above. Picks are made among the farthest `LOOK_AHEAD`
    points, whose distances are kept exact, for as long as the farthest of them is beyond the bounds of all others;
    then those others whose bound is greater hear of the new picks, in one matrix product a block. The picks are
    those of the plain loop, but for points whose distances differ by the rounding of float32.

    Args:
        points: (n, d) candidates, in any float type; unit length makes the distance that of angles. Compared in
            float32 through norms and products, so distances below about 0.001 of the points' norm are not told apart.
        covered: (m, d) points that count as picked from the start; may be empty, and the first pick is then the
            point farthest from the mean of all.
        groups: (n,) group of each candidate.
        count: Points to pick, at most; fewer come back when the groups run out.

    Returns:
        Indices of the picked points in the order of picking, and the distance of each to the nearest one before it,
        recomputed in float64; that of the first is to the mean where nothing was covered.
    """
    group, names = pd.factorize(groups)
    count = min(count, len(names))
    if count <= 0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    mean: Float = points.mean(axis=0, dtype=np.float64).reshape(1, -1)
    start = covered if len(covered) else mean
    with workers() as pool:
        search = _Search(points, start, group, count, pool)
        if not len(covered):
            search.pick_first()
        while len(search.picked) < count:
            search.look_ahead()
    picked = np.array(search.picked, dtype=np.int64)
    chosen = points[picked].astype(np.float64)
    return picked, distances_before(chosen, start.astype(np.float64), only_first=not len(covered))


class _Search:
    """Bounds on the squared distance of each point to its nearest centre, and how many centres each has heard of.

    A point that can't be picked any more, as its group was, has the bound -1.
    """

    def __init__(self, points: Vectors, start: Vectors, group: Labels, count: int, pool: Workers) -> None:
        self.points, self.group, self.count, self.pool = points, group, count, pool
        self.centres = np.empty((len(start) + count, points.shape[1]), dtype=np.float32)
        self.centres[: len(start)] = start
        self.made = len(start)
        self.picked: list[int] = []
        self.taken = np.zeros(int(group.max()) + 1, dtype=bool)
        self.norms = np.concatenate([_norms(_single(points[rows])) for rows in blocks(len(points))])
        self.bounds = np.full(len(points), np.inf, dtype=np.float32)
        self.heard = np.zeros(len(points), dtype=np.int64)

    def pick_first(self) -> None:
        """Pick the point farthest from the start, which from then on is no centre."""
        self.hear(np.arange(len(self.points)))
        first = int(self.bounds.argmax())
        self.bounds[:], self.heard[:], self.made = np.inf, 0, 0
        self.add(first)
        self.bounds[self.taken[self.group]] = -1

    def add(self, row: int) -> None:
        """Make a point a centre, and take its group."""
        self.centres[self.made] = self.points[row]
        self.made += 1
        self.picked.append(row)
        self.taken[self.group[row]] = True

    def look_ahead(self) -> None:
        """Pick among the farthest points while that is certain; then find the farthest of all."""
        leaders, bar = self.leaders()
        self.hear(leaders)
        values, norms = _single(self.points[leaders]), self.norms[leaders]
        near, group = self.bounds[leaders], self.group[leaders]
        while len(self.picked) < self.count:
            best = int(near.argmax())
            if near[best] < max(bar, 0):
                break
            self.add(int(leaders[best]))
            distances = norms + norms[best] - 2 * (values @ values[best])
            np.minimum(near, np.maximum(distances, 0), out=near)
            near[group == group[best]] = -1
        self.bounds[leaders], self.heard[leaders] = near, self.made
        self.bounds[self.taken[self.group]] = -1
        if len(self.picked) < self.count:
            self.hear(np.flatnonzero(self.bounds > near.max()))

    def leaders(self) -> tuple[Labels, float]:
        """The points with the greatest bounds, by index, and the greatest bound of the others."""
        if len(self.bounds) <= LOOK_AHEAD:
            return np.arange(len(self.bounds)), -1.0
        order = np.argpartition(self.bounds, len(self.bounds) - LOOK_AHEAD - 1)
        return np.sort(order[-LOOK_AHEAD:]), float(self.bounds[order[-LOOK_AHEAD - 1]])

    def hear(self, rows: Labels) -> None:
        """Bring the bounds of these rows down to their distances."""
        rows = rows[(self.heard[rows] < self.made) & (self.bounds[rows] >= 0)]
        rows = rows[np.argsort(self.heard[rows], kind="stable")]  # rows of a block have about the same to hear
        half: Single = _norms(self.centres[: self.made]) / np.float32(2)
        list(in_order(self.pool, lambda part: self._hear(rows[part], half), blocks(len(rows))))
        self.heard[rows] = self.made

    def _hear(self, rows: Labels, half: Single) -> None:
        values = _single(self.points[rows])
        closest = np.full(len(rows), -np.inf, dtype=np.float32)
        for first in range(int(self.heard[rows[0]]), self.made, CENTRES_A_BLOCK):
            part = slice(first, min(first + CENTRES_A_BLOCK, self.made))
            products = values @ self.centres[part].T
            products -= half[part]
            np.maximum(closest, products.max(axis=1), out=closest)
        distances = np.maximum(self.norms[rows] - 2 * closest, 0)
        self.bounds[rows] = np.minimum(self.bounds[rows], distances)


def _single(values: Vectors) -> Single:
    return values.astype(np.float32, copy=False)


def _norms(values: Single) -> Single:
    norms: Single = np.einsum("ij,ij->i", values, values)
    return norms


def distances_before(picked: Float, start: Float, only_first: bool = False) -> Float:
    """Distance float64 (k,) of each picked point (k, d) to the nearest of the start and those picked before it."""
    nearest = np.full(len(picked), np.inf)
    norms = np.einsum("ij,ij->i", picked, picked)
    for rows in blocks(len(start)):
        part = start[rows]
        squares = norms[:, None] + np.einsum("ij,ij->i", part, part) - 2 * picked @ part.T
        nearest = np.minimum(nearest, squares.min(axis=1))
    if only_first:
        nearest[1:] = np.inf
    for rows in blocks(len(picked)):
        squares = norms[rows, None] + norms - 2 * picked[rows] @ picked.T
        squares[np.arange(len(picked)) >= np.arange(rows.start, rows.stop)[:, None]] = np.inf
        nearest[rows] = np.minimum(nearest[rows], squares.min(axis=1))
    distances: Float = np.sqrt(np.maximum(nearest, 0))
    return distances
