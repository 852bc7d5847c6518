"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number that makes a model's confidence honest."""

import numpy as np
import numpy.typing as npt

from scanloop.types import Float, Labels

LOG_TEMPERATURE_BOUNDS = (-4.0, 4.0)
"""Search range of ln T: T in 0.018..55. Perfectly separated logits would otherwise send T to zero."""

TINY = float(np.finfo(np.float64).tiny)


def fit_temperature(logits: npt.ArrayLike, labels: Labels) -> float:
    """Temperature that minimises the log-loss of softmax(logits / T).

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
        return float(-np.log(probabilities_of(scores, np.exp(log_temperature))[rows, labels].clip(TINY)).mean())

    result = minimize_scalar(log_loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def probabilities_of(logits: npt.ArrayLike, temperature: float = 1.0) -> Float:
    """Probabilities softmax(logits / temperature), (n, classes); rows sum to 1."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Float = powers / powers.sum(axis=1, keepdims=True)
    return shares
