"""What a semi-supervised method is: it turns opinions on a pool into soft labels, from which a head learns as well."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import Head, TunedHead, fit_head
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Targets:
    """Soft labels of a pool.

    Attributes:
        probabilities: (n, classes); rows sum to 1.
        weights: (n,) weight of each row's loss, at least 0; a given label has the weight 1.
        promoted: Indices (k,) of rows whose target is a promoted label.
    """

    probabilities: Float
    weights: Float
    promoted: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def promoting(self, rows: Labels, probabilities: Float, weight: float) -> "Targets":
        """The same with promoted labels, as targets (k, classes) of one weight, for some rows (k,)."""
        changed = Targets(self.probabilities.copy(), self.weights.copy(), rows)
        changed.probabilities[rows], changed.weights[rows] = probabilities, weight
        return changed


Method: TypeAlias = Callable[[Opinions], Targets]


def fit_on_targets(tuned: TunedHead, known: Known, pool: Pool, targets: Targets) -> Head:
    """Head on the labels and the pool's soft labels, with the penalty and the encoders of the tuned head.

    Given labels keep their value and the weight 1. A soft label counts once for each class, weighted by its share.
    Without a row that weighs anything it is the supervised head itself, to the bit.

    Args:
        tuned: Head tuned on the labelled rows.
        known: These rows.
        pool: Rows without a label.
        targets: Theirs.
    """
    rows = np.flatnonzero(targets.weights > 0)
    if not len(rows):
        return tuned.head
    classes = targets.probabilities.shape[1]
    shares = targets.probabilities[rows] * targets.weights[rows, None]
    vectors = np.concatenate([tuned.seen(known.vectors), *[tuned.seen(pool.vectors)[rows]] * classes])
    labels = np.concatenate([known.labels, np.repeat(np.arange(classes), len(rows))])
    weights = np.concatenate([np.ones(len(known.labels)), shares.T.ravel()])
    kept = weights > 0
    return fit_head(vectors[kept], labels[kept], classes, tuned.c, weights[kept]).padded(known.vectors.shape[1])


def weighing(opinions: Opinions, probabilities: Float, times: float = 1.0) -> Targets:
    """Targets whose rows together weigh so many times what the labelled rows do, and none more than one of these."""
    count = len(probabilities)
    return Targets(probabilities, np.full(count, min(1.0, times * len(opinions.known.labels) / count)))
