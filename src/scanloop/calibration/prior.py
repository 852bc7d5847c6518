"""Classes that come in other shares than where a model was calibrated: found without labels, and corrected for."""

import numpy as np
from scipy.special import logsumexp

from scanloop.types import Float, Labels

LEAST = 1e-7
"""Least share or probability that counts: logarithms stay finite."""


def class_shares(labels: Labels, classes: int) -> Float:
    """Share of each class among class indices (n,), (classes,); one that does not occur counts as half an image."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 0.5)
    shares: Float = counts / counts.sum()
    return shares


def log_ratio(trained: Float, met: Float) -> Float:
    """What is added to the logarithms of calibrated probabilities where classes come in other shares, (classes,).

    By Bayes' rule, for shares that change while each class looks the same: label shift (Saerens et al. 2002,
    doi:10.1162/089976602753284446). Where a class itself looks otherwise, it is wrong.

    Args:
        trained: (classes,) shares of the classes where the model was calibrated.
        met: (classes,) shares where it is used.
    """
    ratio: Float = np.log(np.maximum(met, LEAST)) - np.log(np.maximum(trained, LEAST))
    return ratio


def prior_shift(probabilities: Float, trained: Float, met: Float) -> Float:
    """Probabilities (n, classes) of a calibrated model, corrected by `log_ratio`."""
    scores = np.log(probabilities.clip(LEAST)) + log_ratio(trained, met)
    shifted: Float = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    return shifted


def estimate_prior(probabilities: Float, trained: Float, rounds: int = 1000, tolerance: float = 1e-9) -> Float:
    """Shares (classes,) of the classes among unlabelled rows, by expectation and maximisation (Saerens et al. 2002).

    Args:
        probabilities: (n, classes) calibrated on rows in which the classes have the shares `trained`; a map with a bias
            a class is needed for that (Alexandari et al. 2020, arXiv:1901.06852).
        trained: (classes,) these shares, above 0.
        rounds: Most rounds.
        tolerance: Largest change of a share at which it ends.
    """
    met = np.asarray(trained, dtype=np.float64)
    for _ in range(rounds):
        shares = prior_shift(probabilities, trained, met).mean(axis=0)
        change, met = float(np.abs(shares - met).max()), shares
        if change < tolerance:
            break
    return met
