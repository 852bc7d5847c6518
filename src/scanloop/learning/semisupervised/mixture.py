"""Each class a cloud: a mixture of Gaussians of one covariance, fitted to labels and pool, with the graph's word.

Labels and pool are fitted together by expectation and maximisation (Nigam et al. 2000, doi:10.1023/A:1007692713085; the
model is that of linear discriminant analysis). The graph's probabilities take part in each expectation as a second
expert: where clouds overlap, neighbours decide.
"""

import numpy as np
from scipy.special import log_softmax, softmax

from scanloop.learning.semisupervised.method import Targets, weighing
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.types import Float

ROUNDS, SHRINKAGE, LEAST, TIMES = 8, 0.1, 1e-3, 12.0
"""Rounds, share of the covariance that is its mean variance alone, the graph's least probability, and how many times
the labels' weight the pool has in the head."""


def mixture(opinions: Opinions) -> Targets:
    """Probabilities of the mixture and the graph together."""
    known = len(opinions.known.labels)
    rows = opinions.components
    given = np.eye(opinions.classes)[opinions.known.labels]
    graph = np.log(opinions.graph.clip(LEAST) / opinions.graph.clip(LEAST).sum(axis=1, keepdims=True))
    pool = len(rows) - known
    found = softmax(_scores(rows[:known], given, np.ones(known), rows[known:]) + graph, axis=1)
    weights = np.concatenate([np.ones(known), np.full(pool, known / pool)])
    for _ in range(ROUNDS - 1):
        found = softmax(_scores(rows, np.concatenate([given, found]), weights, rows[known:]) + graph, axis=1)
    return weighing(opinions, found, TIMES)


def _scores(rows: Float, shares: Float, weights: Float, queries: Float) -> Float:
    """Log-posteriors (m, classes) of queries (m, d) under Gaussians fitted to weighted rows (n, d) with soft labels.

    The classes' weights are their priors, so that a pool with another share of a class than the labels is followed.
    """
    mass = shares * weights[:, None]
    size = mass.sum(axis=0)
    means = mass.T @ rows / size[:, None]
    spread = (rows * mass.sum(axis=1, keepdims=True)).T @ rows - (means * size[:, None]).T @ means
    covariance = spread / size.sum()
    width = len(covariance)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    plane = np.linalg.solve(covariance, means.T)
    scores: Float = queries @ plane - (means.T * plane).sum(axis=0) / 2 + np.log(size / size.sum())
    return np.asarray(log_softmax(scores, axis=1))
