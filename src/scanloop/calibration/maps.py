"""Calibrators fitted: temperature, affine, beta and isotonic.

Every map must be fitted on logits of rows that the model was not trained on, drawn at random from what it will meet.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.isotonic import IsotonicRegression

from scanloop.calibration.calibrator import Calibrator, log_odds
from scanloop.calibration.scaling import fit_temperature, least_temperature
from scanloop.types import Float, Labels

Fit: TypeAlias = Callable[[Float, Labels], Calibrator]
"""From logits (n, classes) and class indices (n,) to a calibrator."""

GRID = 0.1
"""Step of the scaled log-odds at which an isotonic curve may bend: rounding in float32 moves nothing by more than
tenfold."""

_T = TypeVar("_T")

MOST_STEEPNESS = 10.0
"""Largest coefficient of a beta curve, in units of the temperature's own slope."""


def uncalibrated(logits: Float, labels: Labels) -> Calibrator:  # noqa: ARG001 - has the shape of every other fit
    """Softmax of the logits as they are."""
    return Calibrator("none")


def temperature(logits: Float, labels: Labels) -> Calibrator:
    """Softmax of the logits divided by one number (Guo et al. 2017, arXiv:1706.04599); keeps every ranking."""
    return Calibrator("temperature", fit_temperature(logits, labels))


def affine(logits: Float, labels: Labels) -> Calibrator:
    """Softmax of a slope times the logits plus a bias a class; with two classes Platt scaling (Platt 1999).

    The bias moves the operating point, as another class prior does; the slope stays above 0, so no ranking turns round.
    Alexandari et al. (2020, arXiv:1901.06852) call it bias-corrected temperature scaling.
    """
    classes = logits.shape[1]
    rows = np.arange(len(labels))

    def scaled(parameters: Float) -> Float:
        moved: Float = np.exp(parameters[0]) * logits + np.concatenate([[0.0], parameters[1:]])
        return moved

    def loss(parameters: Float) -> float:
        return float(-log_softmax(scaled(parameters), axis=1)[rows, labels].mean())

    start = np.concatenate([[-np.log(fit_temperature(logits, labels))], np.zeros(classes - 1)])
    steepest = -np.log(least_temperature(logits))
    bounds = [(min(-8.0, steepest), steepest), *[(-20.0, 20.0)] * (classes - 1)]
    found = minimize(loss, start, bounds=bounds, method="L-BFGS-B").x
    return Calibrator("affine", float(np.exp(-found[0])), bias=(0.0, *map(float, found[1:])))


def beta(logits: Float, labels: Labels) -> Calibrator:
    """Beta calibration (Kull et al. 2017, "Beta calibration"), each class against the rest, then rows to a sum of 1.

    The log-odds of a class become a ln p - b ln(1 - p) + c with a and b at least 0: other shapes than a sigmoid's, the
    identity among them. p is the probability that the temperature gives.
    """
    divisor = fit_temperature(logits, labels)
    return Calibrator("beta", divisor, beta=_curves(_beta_curve, logits / divisor, labels))


def isotonic(logits: Float, labels: Labels) -> Calibrator:
    """Isotonic regression (Zadrozny and Elkan 2002), each class against the rest, then rows to a sum of 1.

    It takes any monotone shape, and so many labels to be held in check: below some hundred it overfits. Log-odds are
    rounded to a grid, and no probability is closer to 0 or 1 than n right answers in a row show (1 / (n + 2)).
    """
    divisor = fit_temperature(logits, labels)
    return Calibrator("isotonic", divisor, knots=_curves(_isotonic_curve, logits / divisor, labels))


MAPS: Mapping[str, Fit] = {
    "temperature": temperature,
    "affine": affine,
    "beta": beta,
    "isotonic": isotonic,
}
"""Fits by method, the one with the fewest parameters first: the order in which they are preferred."""

FITS: Mapping[str, Fit] = {"none": uncalibrated, **MAPS}
"""The same, and what leaves logits as they are."""


def _curves(curve: Callable[[Float, Float], _T], logits: Float, labels: Labels) -> tuple[_T, ...]:
    numbers = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    return tuple(curve(log_odds(logits, number), (labels == number).astype(float)) for number in numbers)


def _beta_curve(odds: Float, hits: Float) -> tuple[float, float, float]:
    inputs = np.stack([-np.logaddexp(0, -odds), np.logaddexp(0, odds), np.ones_like(odds)])

    def loss(parameters: Float) -> float:
        mapped = parameters @ inputs
        return float((np.logaddexp(0, mapped) - hits * mapped).mean())

    def slope(parameters: Float) -> Float:
        mapped = parameters @ inputs
        gradient: Float = inputs @ (expit(mapped) - hits) / len(hits)
        return gradient

    bounds = [(0.0, MOST_STEEPNESS), (0.0, MOST_STEEPNESS), (-20.0, 20.0)]
    a, b, c = minimize(loss, [1.0, 1.0, 0.0], jac=slope, bounds=bounds, method="L-BFGS-B").x
    return float(a), float(b), float(c)


def _isotonic_curve(odds: Float, hits: Float) -> tuple[tuple[float, float], ...]:
    edge = 1 / (len(hits) + 2)
    fitted = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(np.round(odds / GRID), hits)
    steps, shares = fitted.X_thresholds_, fitted.y_thresholds_
    return tuple((float(step) * GRID, float(share)) for step, share in zip(steps, shares, strict=True))
