"""What four different heads say of a pool: the methods differ only in what they make of it."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelSpreading
from threadpoolctl import threadpool_limits

from scanloop.embedding.blocks import unit
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import TunedHead
from scanloop.learning.neighbours import nearest_prototype, neighbour_vote
from scanloop.types import Float, Half, Labels

DIMENSION, NEIGHBOURS, CLAMPING = 64, 15, 0.2
"""Principal components of labels and pool, neighbours of a row in the graph, share of its label that these give."""

VOTERS = 11
"""Labelled neighbours that vote."""


@dataclass(frozen=True)
class Opinions:
    """Opinions on each row of a pool, each computed once, when a method first asks for it.

    Attributes:
        tuned: Head tuned and calibrated on the labelled rows.
        known: Labelled rows.
        pool: The rows that are judged, at least one.
    """

    tuned: TunedHead
    known: Known
    pool: Pool

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.tuned.head.bias)

    @property
    def _seen(self) -> tuple[Half, Labels, Half]:
        """Vectors of the labelled rows as far as the head looks at them, their labels, and the pool's vectors."""
        return self.tuned.seen(self.known.vectors), self.known.labels, self.tuned.seen(self.pool.vectors)

    @cached_property
    def head(self) -> Float:
        """Calibrated probabilities (n, classes) of the logistic head."""
        return self.tuned.probabilities(self.pool.vectors)

    @cached_property
    def votes(self) -> tuple[Labels, Float]:
        """Majority class (n,) of the nearest labelled rows by angle, and its share."""
        return neighbour_vote(*self._seen, VOTERS, self.classes)

    @cached_property
    def prototypes(self) -> Labels:
        """Class (n,) whose mean direction is nearest."""
        return nearest_prototype(*self._seen, self.classes)

    @cached_property
    def components(self) -> Float:
        """Principal components (m + n, k <= 64) of the standardised vectors of labelled rows, then of the pool's."""
        known, _, pool = self._seen
        vectors = np.concatenate([known, pool]).astype(np.float64)
        std = vectors.std(axis=0)
        vectors = (vectors - vectors.mean(axis=0)) / np.where(std < 1e-8, 1, std)
        with threadpool_limits(1):
            found: Float = PCA(min(DIMENSION, *vectors.shape), random_state=0).fit_transform(vectors)
        return found

    @cached_property
    def graph(self) -> Float:
        """Probabilities (n, classes) that come over the graph of nearest neighbours; the head's where no label reaches.

        Label spreading of Zhou et al. (2003), "Learning with Local and Global Consistency".
        """
        given = np.concatenate([self.known.labels, np.full(len(self.pool.vectors), -1)])
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            neighbours = min(NEIGHBOURS, len(given) - 1)
            spread = LabelSpreading(kernel="knn", n_neighbors=neighbours, alpha=CLAMPING, max_iter=100)
            spread.fit(unit(self.components), given)
        reached: Float = np.zeros_like(self.head)
        reached[:, spread.classes_] = spread.label_distributions_[len(self.known.labels) :]
        return np.where(reached.sum(axis=1, keepdims=True) > 0, reached, self.head)
