"""Self-training by the promotion rule: sure of it, and the nearest labelled neighbours say the same."""

import numpy as np

from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.opinions import Opinions

LEAST_CONFIDENCE, LEAST_SHARE, WEIGHT = 0.8, 0.5, 0.5
"""The rule's thresholds, and the weight of a row that passes, as `pseudo_label` has them by default."""


def self_training(opinions: Opinions) -> Targets:
    """Rows that pass the rule get their class; the others weigh nothing."""
    labels = opinions.head.argmax(axis=1)
    voted, shares = opinions.votes
    passed = (opinions.head.max(axis=1) >= LEAST_CONFIDENCE) & (voted == labels) & (shares > LEAST_SHARE)
    return Targets(np.eye(opinions.classes)[labels], np.where(passed, WEIGHT, 0.0))
