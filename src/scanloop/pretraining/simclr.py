"""SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of a slice attract, views of different slices repel."""

import torch
from torch import Tensor
from torch.nn import functional

from scanloop.embedding.encoders import Encoder
from scanloop.pretraining.method import Method


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy: each view must find its twin among the 2n - 1 others.

    Args:
        first: (n, d) projections of one view; need not be normalised.
        second: (n, d) projections of the other view, in the same order.
        temperature: > 0; smaller weighs near negatives more.

    Returns:
        Mean loss over the 2n views, scalar; ln(2n - 1) when all projections are equal.
    """
    count = len(first)
    views = functional.normalize(torch.cat([first, second]), dim=1)
    similarity = views @ views.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    twins = torch.arange(2 * count, device=first.device).roll(count)
    return functional.cross_entropy(similarity, twins)


class SimCLR(Method):
    """Both views go through the same encoder, in one batch."""

    def __init__(self, encoder: Encoder, projection: int, temperature: float) -> None:
        super().__init__(encoder, projection)
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of both views."""
        one, other = self.projector(self.encoder(torch.cat([first, second]))).chunk(2)
        return one, other

    def loss(self, first: Tensor, second: Tensor, slices: Tensor) -> Tensor:  # noqa: ARG002  # of use to MoCo
        """NT-Xent of the projections."""
        return nt_xent(first, second, self.temperature)
