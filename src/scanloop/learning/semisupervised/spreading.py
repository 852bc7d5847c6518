"""Label spreading: every row of the pool with the label that reaches it over the graph."""

from scanloop.learning.semisupervised.method import Targets, weighing_as_the_labels
from scanloop.learning.semisupervised.opinions import Opinions


def spreading(opinions: Opinions) -> Targets:
    """The graph's probabilities."""
    return weighing_as_the_labels(opinions, opinions.graph)
