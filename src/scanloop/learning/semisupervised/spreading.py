"""Label spreading: every row of the pool with the label that reaches it over the graph."""

from scanloop.learning.semisupervised.method import Targets, weighing
from scanloop.learning.semisupervised.opinions import Opinions


def spreading(opinions: Opinions) -> Targets:
    """The graph's probabilities."""
    return weighing(opinions, opinions.graph)
