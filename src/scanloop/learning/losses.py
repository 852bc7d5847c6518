"""What a classifier is punished for: cross-entropy, weighed by class or focused on the hard rows, and mixed rows."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scanloop.types import Float

LEAST = 1e-7
"""Least doubt of the focal loss: without any, a power below 1 has no gradient."""


def balanced_weights(targets: Float) -> Float:
    """Weight (classes,) of each class, inverse to its share of the targets (n, classes): n / (classes * count).

    A class that has no share weighs nothing.
    """
    counts = targets.sum(axis=0)
    weights: Float = np.divide(len(targets), targets.shape[1] * counts, out=np.zeros_like(counts), where=counts > 0)
    return weights


def classification_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None, focus: float = 0.0) -> Tensor:
    """Mean over rows of the cross-entropy to soft targets, a scalar.

    Args:
        logits: (n, classes).
        targets: (n, classes) probabilities.
        weights: (classes,) factor of each class; None weighs all alike.
        focus: gamma >= 0 of the focal loss (Lin et al. 2017, arXiv:1708.02002): each class's term is multiplied by
            (1 - p) to this power, so that rows which are right already teach less.
    """
    logs = functional.log_softmax(logits, dim=1)
    terms = targets * logs
    if weights is not None:
        terms = terms * weights
    if focus:
        terms = terms * (1 - logs.exp()).clamp_min(LEAST) ** focus
    return -terms.sum(dim=1).mean()


def mixed(values: Tensor, targets: Tensor, alpha: float, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rows mixed with rows of the same batch in a share that is Beta(alpha, alpha) (MixUp, arXiv:1710.09412).

    Args:
        values: (n, ...) images or feature maps.
        targets: (n, classes) probabilities.
        alpha: 0 returns both as they are.
        draw: Source of the share and of the partners.
    """
    if not alpha:
        return values, targets
    share = float(draw.beta(alpha, alpha))
    partners = torch.from_numpy(draw.permutation(len(values)))
    return share * values + (1 - share) * values[partners], share * targets + (1 - share) * targets[partners]
