"""Images as another machine, another archive or a hurried hand would give them: darker, noisier, blurred, cropped.

The kinds are those of common-corruption benchmarks (Hendrycks and Dietterich 2019, arXiv:1903.12261), at strengths that
leave the image readable; each is a plain operation on the stored 8-bit slice, before the model's own preprocessing.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFilter

from scanloop.types import Image

Alter: TypeAlias = Callable[[Image, np.random.Generator], Image]


@dataclass(frozen=True)
class Alteration:
    """One change at one strength.

    Attributes:
        kind: "darker", "brighter", "contrast", "noise", "blur", "crop" or "jpeg".
        severity: 1 mild, 2, 3 strong.
        setting: What that means, for readers.
        alter: From a slice and a generator to the altered slice, of the same type; its size changes by a crop alone.
    """

    kind: str
    severity: int
    setting: str
    alter: Alter

    def __call__(self, image: Image, slice_id: str, seed: int) -> Image:
        """The altered slice: the same for the same slice and seed, whichever others are altered beside it."""
        name = f"{seed} {slice_id} {self.kind} {self.severity}".encode()
        return self.alter(image, np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8])))


def scaled(factor: float) -> Alter:
    """Every value times a factor; what leaves 0..255 is cut."""
    return lambda image, _: _bytes(image * factor)


def contrasted(factor: float) -> Alter:
    """Distance of every value from the image's mean, times a factor."""
    return lambda image, _: _bytes(image.mean() + (image - image.mean()) * factor)


def noised(deviation: float) -> Alter:
    """Gaussian noise of this standard deviation, in grey values of 0..255, on every pixel and channel."""
    return lambda image, draw: _bytes(image + draw.normal(0.0, deviation, image.shape))


def blurred(share: float) -> Alter:
    """Gaussian blur whose standard deviation is this share of the short side."""
    return lambda image, _: np.asarray(
        PIL.Image.fromarray(image).filter(PIL.ImageFilter.GaussianBlur(share * min(image.shape[:2])))
    )


def cropped(share: float) -> Alter:
    """The centre: this share of each side."""

    def crop(image: Image, _: np.random.Generator) -> Image:
        height, width = (max(1, round(share * side)) for side in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    return crop


def compressed(quality: int) -> Alter:
    """What a JPEG of this quality leaves."""

    def compress(image: Image, _: np.random.Generator) -> Image:
        sink = io.BytesIO()
        PIL.Image.fromarray(image).save(sink, "JPEG", quality=quality)
        return np.asarray(PIL.Image.open(sink))

    return compress


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Image:
    cut: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cut


_KINDS: dict[str, tuple[tuple[str, Alter], ...]] = {
    "darker": tuple((f"brightness x {factor:g}", scaled(factor)) for factor in (0.9, 0.75, 0.5)),
    "brighter": tuple((f"brightness x {factor:g}", scaled(factor)) for factor in (1.1, 1.25, 1.5)),
    "contrast": tuple((f"contrast x {factor:g}", contrasted(factor)) for factor in (0.8, 0.6, 0.4)),
    "noise": tuple((f"noise of {sigma} grey values", noised(sigma)) for sigma in (5, 10, 20)),
    "blur": tuple((f"blur over {share:.1%} of the short side", blurred(share)) for share in (0.005, 0.01, 0.02)),
    "crop": tuple((f"central {share:.0%} of each side", cropped(share)) for share in (0.95, 0.9, 0.8)),
    "jpeg": tuple((f"JPEG of quality {quality}", compressed(quality)) for quality in (75, 40, 15)),
}
ALTERATIONS = tuple(
    Alteration(kind, severity, setting, alter)
    for kind, levels in _KINDS.items()
    for severity, (setting, alter) in enumerate(levels, 1)
)
"""Every alteration, kind by kind, from mild to strong."""
