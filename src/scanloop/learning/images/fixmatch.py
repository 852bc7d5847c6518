"""FixMatch: what the model is sure of on a weak view, it must say of the strong one too (arXiv:2001.07685)."""

import torch
from torch import Tensor
from torch.nn import functional

MEMORY = 0.99
"""Share of the running mean that a batch leaves as it is."""


class FixMatch:
    """The loss of unlabelled images.

    Attributes:
        threshold: Least confidence on the weak view for an image to teach.
        prior: (classes,) shares of the classes among the unlabelled images, to which predictions are aligned; None
            aligns nothing (distribution alignment, Berthelot et al. 2020, arXiv:1911.09785).
    """

    def __init__(self, threshold: float, prior: Tensor | None = None) -> None:
        self.threshold, self.prior = threshold, prior
        self._seen: Tensor | None = None

    def __call__(self, weak: Tensor, strong: Tensor, _teacher: Tensor) -> Tensor:
        """Scalar loss from logits (n, classes) of both views; what the teacher says plays no part."""
        with torch.no_grad():
            targets = self.aligned(weak.softmax(dim=1))
            confidence, labels = targets.max(dim=1)
            counts = (confidence >= self.threshold).float()
        return (functional.cross_entropy(strong, labels, reduction="none") * counts).mean()

    def aligned(self, probabilities: Tensor) -> Tensor:
        """Probabilities (n, classes) whose running mean is moved to the prior."""
        if self.prior is None:
            return probabilities
        mean = probabilities.mean(dim=0)
        self._seen = mean if self._seen is None else MEMORY * self._seen + (1 - MEMORY) * mean
        moved = probabilities * self.prior / self._seen.clamp_min(1e-6)
        return moved / moved.sum(dim=1, keepdim=True)
