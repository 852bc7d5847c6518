"""What a policy chooses from: the pool with what a head says of it, and what is labelled already."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scanloop.embedding.blocks import blocks, unit
from scanloop.types import Float, Groups, Labels, Single, Vectors


@dataclass(frozen=True)
class Situation:
    """The pool as policies see it.

    Attributes:
        probabilities: (n, classes) of the pool, calibrated.
        vectors: (n, d) embeddings of the pool, in any float type.
        groups: (n,) group of each image; at most one image of a group is chosen.
        free: (n,) whether an image may be chosen.
        labelled: float32 (m, d) unit embeddings that have a label.
        labels: (m,) their class indices.
        answer: The head: from vectors (k, d) to probabilities (k, classes).
        breadth: Images that compete for each label, where a policy first narrows the pool down.
        seed: Of every draw.
    """

    probabilities: Float
    vectors: Vectors
    groups: Groups
    free: npt.NDArray[np.bool_]
    labelled: Single
    labels: Labels
    answer: Callable[[Vectors], Float]
    breadth: int
    seed: int

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    def points(self, rows: Labels) -> Single:
        """Embeddings of these rows at unit length, float32 (k, d); block by block, as they may be the whole pool."""
        return unit_rows(self.vectors, rows)

    def without(self, rows: Labels) -> "Situation":
        """The same pool, from which no image of these rows' groups may be chosen any more."""
        return replace(self, free=self.free & ~np.isin(self.groups, self.groups[rows]))

    def first(self, order: Labels, count: int) -> Labels:
        """The first free rows of an order, without those whose group was met before."""
        order = order[self.free[order]]
        _, first = np.unique(self.groups[order], return_index=True)
        found: Labels = order[np.sort(first)][:count]
        return found


def unit_rows(vectors: Vectors, rows: Labels) -> Single:
    """These rows (k,) of vectors (n, d) at unit length, float32 (k, d)."""
    found = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for part in blocks(len(rows)):
        found[part] = unit(vectors[rows[part]])
    return found


Policy: TypeAlias = Callable[[Situation, int], Labels]
"""From a situation and a number of labels to at most so many rows of the pool, most wanted first, one of a group."""
