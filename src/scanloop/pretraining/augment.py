"""Two views of one slice that a radiologist would call the same: no vertical flip, little rotation, no hue."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

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


_STRONG = Augmentation()
_WEAK = Augmentation(scale=(0.84, 1.0), rotation_degrees=5.0, flip=0.5, brightness=0.1, contrast=0.1, noise=0.01)
PRESETS: Mapping[tuple[str, str], Augmentation] = {
    ("mri", "strong"): _STRONG,
    ("mri", "weak"): _WEAK,
    # the heart and the liver have a side; a mirrored chest is another finding
    ("xray", "strong"): replace(_STRONG, flip=0.0),
    ("xray", "weak"): replace(_WEAK, flip=0.0),
    # Hounsfield units mean something: a window may shift, a little
    ("ct", "strong"): replace(_STRONG, flip=0.0, brightness=0.1, contrast=0.2),
    ("ct", "weak"): replace(_WEAK, flip=0.0, brightness=0.05, contrast=0.05),
    # the transducer is above: little rotation; gain and speckle differ from one examination to the next
    ("ultrasound", "strong"): replace(_STRONG, rotation_degrees=5.0, noise=0.1),
    ("ultrasound", "weak"): replace(_WEAK, rotation_degrees=3.0, noise=0.03),
}
"""Ranges by modality and strength. Weak crops keep 0.7 of the area at least."""


@dataclass(frozen=True)
class Changes:
    """What was drawn for each slice of a batch.

    Attributes:
        transforms: (n, 2, 3) affine maps from the view's coordinates to the slice's.
        contrast: (n,) factors.
        brightness: (n,) shifts.
        noise: (n,) standard deviations.
    """

    transforms: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor

    def of(self, rows: slice, device: torch.device | str) -> "Changes":
        """The changes of some slices, on a device."""
        values = (self.transforms, self.contrast, self.brightness, self.noise)
        return Changes(*(value[rows].to(device) for value in values))


def draw_changes(count: int, ranges: Augmentation, generator: torch.Generator) -> Changes:
    """Random changes for so many slices.

    Args:
        count: Slices.
        ranges: How much may change.
        generator: Source of every draw.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(*ranges.scale)
    angle = uniform(-1, 1) * math.radians(ranges.rotation_degrees)
    mirror = torch.where(torch.rand(count, generator=generator) < ranges.flip, -1.0, 1.0)
    shift_x, shift_y = uniform(-1, 1) * (1 - side), uniform(-1, 1) * (1 - side)
    cos, sin = torch.cos(angle) * side, torch.sin(angle) * side
    rows = (torch.stack([cos * mirror, -sin, shift_x], 1), torch.stack([sin * mirror, cos, shift_y], 1))
    contrast = uniform(1 - ranges.contrast, 1 + ranges.contrast)
    return Changes(
        torch.stack(rows, 1), contrast, uniform(-ranges.brightness, ranges.brightness), uniform(0, ranges.noise)
    )


def change(images: Tensor, changes: Changes, noise: Tensor) -> Tensor:
    """Changed copy of a batch, one affine resampling and one intensity change an image.

    Args:
        images: float32 (n, c, s, s), range 0..1.
        changes: Of these images.
        noise: Standard normal, of the shape of the images.

    Returns:
        float32 (n, c, s, s), range 0..1.
    """
    grid = functional.affine_grid(changes.transforms, list(images.shape), align_corners=False)
    views = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def column(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = torch.addcmul(mean + column(changes.brightness), views - mean, column(changes.contrast))
    return torch.addcmul(views, noise, column(changes.noise)).clamp_(0, 1)


def augment(images: Tensor, ranges: Augmentation, generator: torch.Generator) -> Tensor:
    """Randomly changed copy of a batch on the CPU.

    Args:
        images: float32 (n, c, s, s), range 0..1.
        ranges: How much may change.
        generator: Source of every draw.

    Returns:
        float32 (n, c, s, s), range 0..1.
    """
    changes = draw_changes(len(images), ranges, generator)
    return change(images, changes, torch.randn(images.shape, generator=generator))
