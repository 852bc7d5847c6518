"""What a semi-supervised method is: it turns opinions on a pool into soft labels, from which a head learns as well."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from scanloop.learning.heads import Head, fit_head
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.types import Float


@dataclass(frozen=True)
class Targets:
    """Soft labels of a pool.

    Attributes:
        probabilities: (n, classes); rows sum to 1.
        weights: (n,) weight of each row's loss, at least 0; a given label has the weight 1.
    """

    probabilities: Float
    weights: Float


Method: TypeAlias = Callable[[Opinions], Targets]


def fit_on_targets(opinions: Opinions, targets: Targets) -> Head:
    """Head on the labels and the pool's soft labels, with the penalty of the tuned head.

    Given labels keep their value and the weight 1. A soft label counts once for each class, weighted by its share.
    Without a row that weighs anything it is the supervised head itself, to the bit.
    """
    rows = np.flatnonzero(targets.weights > 0)
    if not len(rows):
        return opinions.tuned.head
    known, classes = opinions.known, opinions.classes
    shares = targets.probabilities[rows] * targets.weights[rows, None]
    vectors = np.concatenate([known.vectors, *[opinions.pool.vectors[rows]] * classes])
    labels = np.concatenate([known.labels, np.repeat(np.arange(classes), len(rows))])
    weights = np.concatenate([np.ones(len(known.labels)), shares.T.ravel()])
    kept = weights > 0
    return fit_head(vectors[kept], labels[kept], classes, opinions.tuned.c, weights[kept])


def weighing_as_the_labels(opinions: Opinions, probabilities: Float) -> Targets:
    """Targets whose rows weigh, all together, what the labelled rows do."""
    count = len(probabilities)
    return Targets(probabilities, np.full(count, len(opinions.known.labels) / count))
