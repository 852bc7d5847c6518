"""How a pool teaches: a method's soft labels, and on top of them the labels that are promoted."""

from dataclasses import dataclass

import numpy as np

from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import TunedHead
from scanloop.learning.pseudo_labels import propose
from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.learning.semisupervised.policy import METHODS, SUPERVISED
from scanloop.sections.pool import PseudoLabelConfig


@dataclass(frozen=True)
class Recipe:
    """What can be repeated in each fold of a cross-validation, with that fold's labels alone.

    Attributes:
        method: Key of `METHODS`, or "supervised" for no soft labels.
        thresholds: Least confidence of a promoted row by class; None promotes none.
        rule: The rule that a promoted row has passed, and its weight.
    """

    method: str
    thresholds: tuple[float, ...] | None
    rule: PseudoLabelConfig

    @property
    def learns_from_pool(self) -> bool:
        """Whether anything of a pool is learnt from."""
        return self.method != SUPERVISED or self.thresholds is not None

    def targets(self, tuned: TunedHead, known: Known, pool: Pool) -> Targets:
        """Soft labels and weights of a pool's rows.

        Args:
            tuned: Head tuned on the labelled rows.
            known: These rows.
            pool: Rows without a label.
        """
        classes = len(tuned.head.bias)
        if not self.learns_from_pool or not len(pool.slice_ids):
            return Targets(np.full((len(pool.slice_ids), classes), 1 / classes), np.zeros(len(pool.slice_ids)))
        opinions = Opinions(tuned, known, pool)
        if self.method == SUPERVISED:
            found = Targets(opinions.head, np.zeros(len(pool.slice_ids)))
        else:
            found = METHODS[self.method](opinions)
        if self.thresholds is None:
            return found
        proposal = propose(tuned, known, pool, classes, self.rule)
        rows = np.flatnonzero(proposal.above(np.array(self.thresholds)))
        return found.promoting(rows, np.eye(classes)[proposal.labels[rows]], self.rule.weight)
