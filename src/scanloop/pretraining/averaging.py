"""Weights that follow other weights slowly: MoCo's second encoder, and the average that is written at the end."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from scanloop.embedding.encoders import Encoder


@torch.no_grad()
def follow(slow: Iterable[Tensor], fast: Iterable[Tensor], decay: float) -> None:
    """Move each slow tensor towards its fast one: slow becomes decay x slow + (1 - decay) x fast, in place.

    Args:
        slow: Tensors to move; counters of whole numbers are copied.
        fast: Tensors to follow, in the same order.
        decay: Share that is kept, 0..1.
    """
    for behind, ahead in zip(slow, fast, strict=True):
        if behind.is_floating_point():
            behind.lerp_(ahead.detach(), 1 - decay)
        else:
            behind.copy_(ahead)


class Average:
    """Exponential moving average of an encoder, statistics of batch norm included (Polyak and Juditsky 1992).

    Attributes:
        encoder: The average.
        updates: Updates behind it. The first ones count for less than `decay` says, so that a short training is not
            averaged with its random start: the decay of update t is at most (1 + t) / (10 + t).
    """

    def __init__(self, encoder: Encoder, decay: float) -> None:
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.updates = 0
        self._decay = decay

    def update(self, encoder: Encoder) -> None:
        """Take in the weights after one more update."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        follow(self.encoder.state_dict().values(), encoder.state_dict().values(), decay)
