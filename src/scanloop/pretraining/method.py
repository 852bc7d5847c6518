"""What every method of self-supervised training is to the trainer: views in, projections out, a loss of them."""

import torch
from torch import Tensor, nn

from scanloop.embedding.encoders import Encoder


class Method(nn.Module):
    """An encoder with a projection head, and what a method adds to them.

    Attributes:
        encoder: The encoder that is trained.
        projector: The projection head, (n, dimension) to (n, projection); left behind when the encoder is used.
    """

    def __init__(self, encoder: Encoder, projection: int) -> None:
        """Make a method.

        Args:
            encoder: To train.
            projection: Width of both layers of the projection head, whose weights are drawn from torch's state.
        """
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(encoder.dimension, projection), nn.ReLU(), nn.Linear(projection, projection)
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (n, projection) of both views, not normalised; the views are float32 (n, 3, s, s)."""
        raise NotImplementedError

    def loss(self, first: Tensor, second: Tensor, slices: Tensor) -> Tensor:
        """Scalar loss of the projections of all processes, both float32 (n, projection), of slices int64 (n,)."""
        raise NotImplementedError

    @torch.no_grad()
    def after_update(self) -> None:
        """Do what follows an update of the weights."""
