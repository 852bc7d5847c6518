"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number that makes a model's confidence honest."""

import numpy as np
import numpy.typing as npt

from scanloop.types import Float, Labels

LOG_TEMPERATURE_BOUNDS = (-4.0, 4.0)
"""Search range of ln T: T in 0.018..55. Perfectly separated logits would otherwise send T to zero."""


def fit_temperature(logits: npt.ArrayLike, labels: Labels) -> float:
    """Temperature that minimises the log-loss of softmax(logits / T), but at least `least_temperature`.

    Args:
        logits: (n, classes), before softmax; predicted for rows that the model was not trained on.
        labels: (n,), true class indices.

    Returns:
        T > 0; 1 leaves the logits as they are.
    """
    from scipy.optimize import minimize_scalar  # serving applies temperatures and never fits one

    scores = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))

    def log_loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[rows, labels]).mean())

    result = minimize_scalar(log_loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return max(float(np.exp(result.x)), least_temperature(scores))


def least_temperature(logits: npt.ArrayLike) -> float:
    """Temperature at which the mean confidence is that of the rule of succession, (n + 1) / (n + 2).

    Where all of n rows are right, the log-loss asks for certainty; n right answers in a row do not show it.

    Args:
        logits: (n, classes), before softmax.
    """
    from scipy.optimize import brentq

    scores = np.asarray(logits, dtype=np.float64)
    most = (len(scores) + 1) / (len(scores) + 2)

    def excess(log_temperature: float) -> float:
        return float(probabilities_of(scores, np.exp(log_temperature)).max(axis=1).mean()) - most

    low, high = LOG_TEMPERATURE_BOUNDS
    if excess(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(high if excess(high) >= 0 else brentq(excess, low, high, xtol=1e-6)))


def probabilities_of(logits: npt.ArrayLike, temperature: float = 1.0) -> Float:
    """Probabilities softmax(logits / temperature), (n, classes); rows sum to 1."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Float = powers / powers.sum(axis=1, keepdims=True)
    return shares
