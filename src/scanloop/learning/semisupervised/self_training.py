"""Self-training by the promotion rule: sure of it, and the nearest labelled neighbours say the same."""

import numpy as np

from scanloop.learning.pseudo_labels import passes
from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.sections.pool import PseudoLabelConfig

RULE = PseudoLabelConfig()
"""Thresholds of the rule's core, and the weight of a row that passes, as `pseudo_label` has them by default."""


def self_training(opinions: Opinions) -> Targets:
    """Rows that pass the rule get their class; the others weigh nothing."""
    passed = passes(opinions.head, *opinions.votes, RULE)
    return Targets(np.eye(opinions.classes)[opinions.head.argmax(axis=1)], np.where(passed, RULE.weight, 0.0))
