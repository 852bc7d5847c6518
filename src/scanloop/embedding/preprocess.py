"""From a stored slice to a model's input: one definition for embedding, training, the bundle and serving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from scanloop.archive.decode import shrink
from scanloop.types import Image


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side, crop the centre, normalise; deterministic to the bit.

    Attributes:
        archive_px: Short side to which ingest shrank its slices, in pixels; larger images are shrunk to it first, so
            that an image that is served gets the input of its slice in the catalog.
        input_px: Side of the square that the model takes, in pixels.
        mean: Mean per channel in the model's channel order, in units of 0..255.
        std: Standard deviation per channel in the model's channel order, in units of 0..255.
        bgr: Whether the model takes blue first.
    """

    archive_px: int = 256
    input_px: int = 224
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    bgr: bool = False

    def __call__(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """Model input of some slices.

        Args:
            images: uint8 slices, (h, w) grey or (h, w, 3) RGB, of any sizes, range 0..255.

        Returns:
            float32 (n, 3, input_px, input_px), normalised.
        """
        return self.normalised(np.stack([self.square(image) for image in images]))

    def normalised(self, squares: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Model input float32 (n, 3, s, s) of squares, uint8 (n, s, s, 3) RGB."""
        stack = squares[..., ::-1] if self.bgr else squares
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return np.ascontiguousarray(((stack.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))

    def square(self, image: Image) -> Image:
        """uint8 RGB, (input_px, input_px, 3): short side resized to input_px, centre cropped."""
        picture = shrink(PIL.Image.fromarray(image), self.archive_px)
        width, height = picture.size
        scale = self.input_px / min(width, height)
        size = (max(self.input_px, round(width * scale)), max(self.input_px, round(height * scale)))
        if size != picture.size:
            picture = picture.resize(size, PIL.Image.Resampling.BILINEAR)
        left, top = (size[0] - self.input_px) // 2, (size[1] - self.input_px) // 2
        picture = picture.crop((left, top, left + self.input_px, top + self.input_px))
        return np.asarray(picture.convert("RGB"))


def preprocess_from(values: Mapping[str, Any]) -> Preprocess:
    """Preprocessing as its fields stand in JSON; other keys are left alone."""
    given: dict[str, Any] = {field.name: values[field.name] for field in fields(Preprocess)}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Preprocess(**given)
