"""Two views of one slice that a radiologist would call the same: no vertical flip, little rotation, no hue."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes.

    Attributes:
        scale: Least and largest share of the side that a crop keeps.
        rotation_degrees: Largest rotation either way.
        flip: Probability of a left-right flip; organs with a side need 0.
        brightness: Largest shift, as a share of the range.
        contrast: Largest relative change.
        noise: Largest standard deviation of Gaussian noise, as a share of the range.
    """

    scale: tuple[float, float] = (0.6, 1.0)
    rotation_degrees: float = 10.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.4
    noise: float = 0.05


def augment(images: Tensor, ranges: Augmentation, generator: torch.Generator) -> Tensor:
    """Randomly changed copy of a batch, one affine resampling and one intensity change an image.

    Args:
        images: float32 (n, c, s, s), range 0..1.
        ranges: How much may change.
        generator: Source of every draw.

    Returns:
        float32 (n, c, s, s), range 0..1.
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(*ranges.scale)
    angle = uniform(-1, 1) * math.radians(ranges.rotation_degrees)
    mirror = torch.where(torch.rand(count, generator=generator) < ranges.flip, -1.0, 1.0)
    shift_x, shift_y = uniform(-1, 1) * (1 - side), uniform(-1, 1) * (1 - side)
    cos, sin = torch.cos(angle) * side, torch.sin(angle) * side
    rows = (torch.stack([cos * mirror, -sin, shift_x], 1), torch.stack([sin * mirror, cos, shift_y], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    views = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def column(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * column(uniform(1 - ranges.contrast, 1 + ranges.contrast)) + mean
    views = views + column(uniform(-ranges.brightness, ranges.brightness))
    views = views + torch.randn(views.shape, generator=generator) * column(uniform(0, ranges.noise))
    return views.clamp(0, 1)
