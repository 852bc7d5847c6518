"""Head and graph as two experts: what both say counts, what either doubts hardly does.

A product of experts (Hinton 2002, doi:10.1162/089976602760128018), of which one has learnt from labels alone and the
other knows how the pool lies.
"""

from scanloop.learning.semisupervised.method import Targets, weighing
from scanloop.learning.semisupervised.opinions import Opinions

LEAST = 1e-6
"""Least probability that an expert gives: none rules a class out alone."""


def consensus(opinions: Opinions) -> Targets:
    """The product of the graph's and the calibrated head's probabilities."""
    product = opinions.graph.clip(LEAST) * opinions.head.clip(LEAST)
    return weighing(opinions, product / product.sum(axis=1, keepdims=True))
