"""How honest probabilities are, beyond one number: other bins, each class, Brier's parts, and what noise gives."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from scanloop.evaluation.metrics import expected_calibration_error
from scanloop.types import Float, Labels

LEAST = 1e-12


def honesty(repeats: Float, labels: Labels, bins: int = 10, seed: int = 0) -> dict[str, float]:
    """What `metrics.json` says of a model's probabilities beside the ECE, each a mean over the repeats.

    Args:
        repeats: (repeats, n, classes) probabilities.
        labels: (n,) class indices.
        bins: Bins of every measure.
        seed: Of the draws behind the noise floor.

    Returns:
        "ece_noise" is the mean ECE of a perfect model with these probabilities, "ece_noise_high" what one in twenty of
        such models exceeds.
    """
    rows = []
    for probabilities in repeats:
        parts, noise = brier_parts(probabilities, labels, bins), noise_floor(probabilities, bins, seed=seed)
        rows.append({
            "log_loss": log_loss(probabilities, labels),
            "ece_equal_mass": equal_mass_error(probabilities, labels, bins),
            "classwise_ece": classwise_error(probabilities, labels, bins),
            "brier_reliability": parts.reliability,
            "brier_resolution": parts.resolution,
            "brier_uncertainty": parts.uncertainty,
            "ece_noise": float(noise.mean()),
            "ece_noise_high": float(np.quantile(noise, 0.95)),
        })  # fmt: skip
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def log_loss(probabilities: Float, labels: Labels) -> float:
    """Mean negative logarithm of the label's probability; probabilities below 1e-12 count as that."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(LEAST)).mean())


def log_losses(logits: Float, labels: Labels) -> Float:
    """Negative logarithm of the label's probability, (..., n), of calibrated logits (..., n, classes)."""
    losses: Float = -log_softmax(logits, axis=-1)[..., np.arange(len(labels)), labels]
    return losses


def equal_mass_error(probabilities: Float, labels: Labels, bins: int = 10) -> float:
    """ECE over bins that hold equally many images (Nixon et al. 2019, arXiv:1904.01685), 0..1.

    Confidences crowd near 1, where bins of equal width leave most bins nearly empty. Equal ones share a bin.
    """
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return _error(probabilities.max(axis=1), right, bins)


def classwise_error(probabilities: Float, labels: Labels, bins: int = 10) -> float:
    """ECE of each class's probability in bins of equal mass, averaged over the classes (Kull et al. 2019), 0..1."""
    errors = [_error(shares, (labels == label).astype(float), bins) for label, shares in enumerate(probabilities.T)]
    return float(np.mean(errors))


@dataclass(frozen=True)
class BrierParts:
    """Parts of the Brier score, summed over classes (Murphy 1973, "A New Vector Partition of the Probability Score").

    Attributes:
        reliability: How far what is said lies from what happens in the bins; 0 is perfect.
        resolution: How far what happens in the bins lies from the base rate; more is better.
        uncertainty: What a forecast of the base rate alone would get.
        within: What binning hides: the score is reliability - resolution + uncertainty + within.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_parts(probabilities: Float, labels: Labels, bins: int = 10) -> BrierParts:
    """Parts of the Brier score in bins of equal mass of each class's probability."""
    reliability = resolution = uncertainty = score = 0.0
    for label, shares in enumerate(probabilities.T):
        hits = (labels == label).astype(np.float64)
        counts, said, happened = _binned(shares, hits, bins)
        weights = counts / len(labels)
        base = hits.mean()
        reliability += float(weights @ (said - happened) ** 2)
        resolution += float(weights @ (happened - base) ** 2)
        uncertainty += float(base * (1 - base))
        score += float(((shares - hits) ** 2).mean())
    return BrierParts(reliability, resolution, uncertainty, score - reliability + resolution - uncertainty)


def noise_floor(probabilities: Float, bins: int = 10, draws: int = 200, seed: int = 0) -> Float:
    """ECE (draws,) that a perfect model has whose probabilities are these: labels are drawn from them.

    An ECE within these values shows no fault. Their mean shrinks with the number of images, not with the model.
    """
    generator = np.random.default_rng(seed)
    edges = probabilities.cumsum(axis=1)[:, :-1]
    found = np.empty(draws)
    for draw in range(draws):
        labels = (edges < generator.random(len(probabilities))[:, None]).sum(axis=1)
        found[draw] = expected_calibration_error(probabilities, labels, bins=bins)[0]
    return found


def _error(said: Float, happened: Float, bins: int) -> float:
    counts, mean, share = _binned(said, happened, bins)
    return float(counts @ np.abs(mean - share)) / len(said)


def _binned(said: Float, happened: Float, bins: int) -> tuple[Float, Float, Float]:
    """Images, mean of what is said and share of what happened in each bin of equal mass; empty bins are left out."""
    order = np.argsort(said, kind="stable")
    ranks = np.searchsorted(said[order], said, side="left")  # equal values share the rank of the first
    index = ranks * bins // len(said)
    counts = np.bincount(index, minlength=bins).astype(np.float64)
    kept = counts > 0
    sums = (np.bincount(index, values, minlength=bins)[kept] / counts[kept] for values in (said, happened))
    return counts[kept], next(sums), next(sums)
