"""MoCo (He et al. 2020, arXiv:1911.05722): negatives come from a queue that a slowly moving encoder fills.

A lite form: one process needs no shuffled batch norm across GPUs, the projection head has two layers as in version 2
(arXiv:2003.04297), a pool smaller than the queue shortens it, and the keys that a slice left in the queue an epoch ago
are none of its negatives: in a small pool that would push each slice away from itself.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional

from scanloop.embedding.encoders import Encoder
from scanloop.pretraining.averaging import follow
from scanloop.pretraining.method import Method


def info_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float, left_out: Tensor | None = None
) -> Tensor:
    """Each query must find its key among the negatives.

    Args:
        queries: (n, d) projections; need not be normalised.
        keys: (n, d) projections of the other views, in the same order; no gradient flows into them.
        negatives: (k, d) normalised projections of other slices.
        temperature: > 0; smaller weighs near negatives more.
        left_out: bool (n, k), negatives that do not count for a query; None counts all.

    Returns:
        Mean loss over the n queries, scalar; ln(k + 1) when all projections are equal.
    """
    queries, keys = functional.normalize(queries, dim=1), functional.normalize(keys.detach(), dim=1)
    right = (queries * keys).sum(dim=1, keepdim=True)
    wrong = queries @ negatives.T
    if left_out is not None:
        wrong = wrong.masked_fill(left_out, -torch.inf)
    logits = torch.cat([right, wrong], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.int64, device=queries.device))


class MoCo(Method):
    """The first view is the query; the second goes through an encoder that follows the first one's weights.

    Attributes:
        queue: (k, projection) normalised keys of earlier batches, the oldest overwritten first; random at the start.
        owners: (k,) int64, the slice of each key; -1 at the start.
        oldest: () int64, its first row to be overwritten.
    """

    queue: Tensor
    owners: Tensor
    oldest: Tensor

    def __init__(self, encoder: Encoder, projection: int, temperature: float, momentum: float, queue: int) -> None:
        """Make MoCo; the start of the queue is drawn from torch's state.

        Args:
            encoder: To train.
            projection: Width of the projection head.
            temperature: Of InfoNCE.
            momentum: Share of the slow encoder that an update keeps, 0..1.
            queue: Keys that are kept.
        """
        super().__init__(encoder, projection)
        self.temperature, self.momentum = temperature, momentum
        self.slow_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", functional.normalize(torch.randn(queue, projection), dim=1))
        self.register_buffer("owners", torch.full((queue,), -1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of the first views and, by the slow encoder and without gradient, of the second."""
        with torch.no_grad():
            keys = self.slow_projector(self.slow_encoder(second))
        return self.projector(self.encoder(first)), keys

    def loss(self, first: Tensor, second: Tensor, slices: Tensor) -> Tensor:
        """InfoNCE against the queue as it was before this update."""
        slices = slices.to(first.device)
        self._fresh.append((functional.normalize(second.detach(), dim=1), slices))
        return info_nce(first, second, self.queue, self.temperature, self.owners == slices[:, None])

    @torch.no_grad()
    def after_update(self) -> None:
        """Let the slow encoder follow, and put the keys of the update into the queue."""
        follow(self.slow_encoder.parameters(), self.encoder.parameters(), self.momentum)
        follow(self.slow_projector.parameters(), self.projector.parameters(), self.momentum)
        keys, owners = (torch.cat(parts)[-len(self.queue) :] for parts in zip(*self._fresh, strict=True))
        rows = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows], self.owners[rows] = keys, owners
        self.oldest.copy_((self.oldest + len(keys)) % len(self.queue))
        self._fresh.clear()
