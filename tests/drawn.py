"""Slices that are drawn for tests of embedding, and how alike two sets of vectors are."""

import numpy as np
import PIL.Image

from scanloop.types import Image


def draw(count: int, seed: int = 0) -> list[Image]:
    """Smooth slices of several shapes, grey and in colour: noise of a few pixels, made large."""
    rng = np.random.default_rng(seed)
    slices = []
    for index in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize(((40, 52), (52, 40), (44, 44))[index % 3], PIL.Image.Resampling.BICUBIC)
        slices.append(np.asarray(picture.convert("L") if index % 2 else picture))
    return slices


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
