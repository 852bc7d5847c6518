"""Whether an encoder still tells slices apart: the ways in which self-supervised training fails in silence."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Health:
    """How far projections lie apart.

    Attributes:
        spread: Mean standard deviation of the normalised projections' coordinates, times the root of their number, in
            0..1: 1 where they fill the sphere evenly, 0 where all are one point (Chen and He 2021, arXiv:2011.10566).
        rank: Effective rank, the exponential of the entropy of the singular values (Roy and Vetterli 2007; Garrido et
            al. 2023, arXiv:2210.02885): 1 where the centred projections lie on a line, and 1 where they are a point.
        cosine: Mean cosine of two projections of different slices, -1..1.
    """

    spread: float
    rank: float
    cosine: float


@torch.no_grad()
def health(projections: Tensor) -> Health:
    """Health of projections (n, d) of n >= 2 different slices, not normalised."""
    unit = functional.normalize(projections.detach().double().cpu(), dim=1)
    count, width = unit.shape
    spread = float(unit.std(dim=0, correction=0).mean() * width**0.5)
    values = torch.linalg.svdvals(unit - unit.mean(dim=0))
    shares = values / values.sum().clamp_min(1e-300)
    entropy = float(-(shares * shares.clamp_min(1e-300).log()).sum())
    cosine = float((unit.sum(dim=0).square().sum() - count) / (count * (count - 1)))
    return Health(spread, float(torch.tensor(entropy).exp()), cosine)
