"""Diverse heads that all say the same: logistic, nearest neighbours, graph and prototypes."""

import numpy as np

from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.opinions import Opinions


def agreement(opinions: Opinions) -> Targets:
    """Rows on which all four agree get that class; together they weigh what the labelled rows do.

    The easy images agree, so the head learns little that is new from them.
    """
    votes = [opinions.head.argmax(axis=1), opinions.graph.argmax(axis=1), opinions.votes[0], opinions.prototypes]
    agreed = np.all([vote == votes[0] for vote in votes], axis=0)
    weight = len(opinions.known.labels) / max(int(agreed.sum()), 1)
    return Targets(np.eye(opinions.classes)[votes[0]], np.where(agreed, weight, 0.0))
