"""Maps from logits to honest probabilities: temperature, affine, beta and isotonic, and the choice between them.

Every map must be fitted on logits of rows that the model was not trained on, drawn at random from what it will meet.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp
from sklearn.isotonic import IsotonicRegression

from scanloop.calibration.scaling import fit_temperature, probabilities_of
from scanloop.types import Float, Labels

Map: TypeAlias = Callable[[Float], Float]
"""From logits (n, classes) to probabilities (n, classes), rows summing to 1."""

LEAST = 1e-7
"""Least probability that a beta or isotonic map gives or takes: its log-loss stays finite."""


def temperature(logits: Float, labels: Labels) -> Map:
    """Softmax of the logits divided by one number (Guo et al. 2017, arXiv:1706.04599); keeps every ranking."""
    divisor = fit_temperature(logits, labels)
    return lambda scores: probabilities_of(scores, divisor)


def affine(logits: Float, labels: Labels) -> Map:
    """Softmax of a slope times the logits plus a bias a class; with two classes Platt scaling (Platt 1999).

    The bias moves the operating point, as another class prior does; the slope stays above 0, so no ranking turns round.
    """
    classes = logits.shape[1]

    def scaled(parameters: Float, scores: Float) -> Float:
        moved: Float = np.exp(parameters[0]) * scores + np.concatenate([[0.0], parameters[1:]])
        return moved

    def loss(parameters: Float) -> float:
        return float(-log_softmax(scaled(parameters, logits), axis=1)[np.arange(len(labels)), labels].mean())

    start = np.concatenate([[-np.log(fit_temperature(logits, labels))], np.zeros(classes - 1)])
    bounds = [(-8.0, 4.0), *[(-20.0, 20.0)] * (classes - 1)]
    found = minimize(loss, start, bounds=bounds, method="L-BFGS-B").x
    return lambda scores: probabilities_of(scaled(found, scores))


def beta(logits: Float, labels: Labels) -> Map:
    """Beta calibration (Kull et al. 2017, "Beta calibration"), each class against the rest, then rows to a sum of 1.

    The log-odds of a class become a ln p - b ln(1 - p) + c with a and b at least 0: other shapes than a sigmoid's, the
    identity among them.
    """
    return _one_against_rest(_beta_curve, logits, labels)


def isotonic(logits: Float, labels: Labels) -> Map:
    """Isotonic regression (Zadrozny and Elkan 2002), each class against the rest, then rows to a sum of 1.

    It takes any monotone shape, and so many labels to be held in check: below some thousand it overfits.
    """
    return _one_against_rest(_isotonic_curve, logits, labels)


MAPS: Mapping[str, Callable[[Float, Labels], Map]] = {
    "temperature": temperature,
    "affine": affine,
    "beta": beta,
    "isotonic": isotonic,
}
"""Maps by name, the one with the fewest parameters first."""


def _one_against_rest(curve: Callable[[Float, Float], Callable[[Float], Float]], logits: Float, labels: Labels) -> Map:
    given = probabilities_of(logits)
    two = logits.shape[1] == 2
    curves = [
        curve(given[:, label], (labels == label).astype(float)) for label in ([1] if two else range(given.shape[1]))
    ]

    def mapped(scores: Float) -> Float:
        shares = probabilities_of(scores)
        if two:
            positive = curves[0](shares[:, 1]).clip(LEAST, 1 - LEAST)
            return np.stack([1 - positive, positive], axis=1)
        values = np.stack([one(shares[:, label]) for label, one in enumerate(curves)], axis=1).clip(LEAST)
        normalised: Float = values / values.sum(axis=1, keepdims=True)
        return normalised

    return mapped


def _beta_curve(shares: Float, hits: Float) -> Callable[[Float], Float]:
    def inputs(values: Float) -> tuple[Float, Float]:
        inside = values.clip(LEAST, 1 - LEAST)
        return np.log(inside), -np.log1p(-inside)

    first, second = inputs(shares)

    def loss(parameters: Float) -> float:
        odds = parameters[0] * first + parameters[1] * second + parameters[2]
        return float((np.logaddexp(0, odds) - hits * odds).mean())

    bounds = [(0.0, 100.0), (0.0, 100.0), (-50.0, 50.0)]
    found = minimize(loss, [1.0, 1.0, 0.0], bounds=bounds, method="L-BFGS-B").x

    def mapped(values: Float) -> Float:
        one, other = inputs(values)
        shares: Float = expit(found[0] * one + found[1] * other + found[2])
        return shares

    return mapped


def _isotonic_curve(shares: Float, hits: Float) -> Callable[[Float], Float]:
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(shares, hits)
    return lambda values: np.asarray(fitted.predict(values), dtype=np.float64)


def prior_shift(probabilities: Float, trained: Float, met: Float) -> Float:
    """Probabilities of a calibrated model where the classes come in other shares than those it was calibrated on.

    By Bayes' rule, for shares that change while each class looks the same (Saerens et al. 2002,
    doi:10.1162/089976602753284446).

    Args:
        probabilities: (n, classes).
        trained: (classes,) shares of the classes where the model was calibrated, above 0.
        met: (classes,) shares where it is used.
    """
    scores = np.log(probabilities.clip(LEAST)) + np.log(np.maximum(met, LEAST)) - np.log(trained)
    shifted: Float = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    return shifted


def estimate_prior(probabilities: Float, trained: Float, rounds: int = 1000, tolerance: float = 1e-9) -> Float:
    """Shares (classes,) of the classes among unlabelled rows, by expectation and maximisation (Saerens et al. 2002).

    Args:
        probabilities: (n, classes) calibrated on rows in which the classes have the shares `trained`.
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
