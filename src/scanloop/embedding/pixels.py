"""Many slices at once to the blocks of pixels that a compiled network takes: bytes, not yet normalised.

A stride of 2 looks at the same pixels as a stride of 1 over blocks of 2 x 2 pixels. Blocks give the first convolution
8 or 16 channels instead of 1 or 3, which is what matrix units are made for.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch.nn.functional import interpolate

from scanloop.archive.decode import shrink
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Image

BLOCK = 2
"""Side of a block, in pixels."""

GREY_CHANNELS, COLOUR_CHANNELS = 8, 16
"""Bytes a block: its pixels in reading order, red first, and then 255 for each pixel.

The 255 stand wherever the image is, so that a network's zero padding can be told from black.
"""

_INSIDE = np.uint64(0xFFFFFFFF00000000)
_PIXELS = BLOCK * BLOCK


def is_grey(image: Image) -> bool:
    """Whether a slice has one channel."""
    return image.ndim == 2


def pixel_blocks(images: Sequence[Image], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Slices as `Preprocess.square` makes them, within one grey level, several times faster, and cut into blocks.

    Slices of one shape are resized together, and grey ones four at a time: torch's vectorised resize works on four
    channels of a byte each (it follows Pillow's, and its antialiased bilinear weights).

    Args:
        images: uint8 slices, all (h, w) grey or all (h, w, 3) RGB, of any sizes, range 0..255; at least one.
        preprocess: Gives the sides, of which `input_px` is even; its mean and standard deviation are not applied.

    Returns:
        uint8 (n, input_px / 2, input_px / 2, c), range 0..255; c is 8 for grey slices and 16 for those in colour.
    """
    side, half = preprocess.input_px, preprocess.input_px // BLOCK
    grey = is_grey(images[0])
    found = np.empty((len(images), half, half, GREY_CHANNELS if grey else COLOUR_CHANNELS), np.uint8)
    small = [_shrunk(image, preprocess.archive_px) for image in images]
    shapes: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(small):
        shapes.setdefault(image.shape, []).append(row)
    for rows in shapes.values():
        stack = torch.from_numpy(np.stack([small[row] for row in rows]))
        found[rows] = _grey(stack, side) if grey else _colour(stack, side)
    return found


def _shrunk(image: Image, short_side_px: int) -> Image:
    if min(image.shape[:2]) <= short_side_px:
        return image
    return np.asarray(shrink(PIL.Image.fromarray(image), short_side_px))


def _grey(stack: torch.Tensor, side: int) -> npt.NDArray[np.uint8]:
    """Blocks (n, side / 2, side / 2, 8) of grey slices (n, h, w)."""
    count = len(stack)
    filled = torch.cat([stack, stack[:1].expand(-count % 4, -1, -1)]) if count % 4 else stack
    fours = _resized(filled.unflatten(0, (-1, 4)), side)
    pairs = np.ascontiguousarray(fours.flatten(0, 1)[:count].numpy()).view("<u2").astype("<u8")
    words = pairs[:, 0::2] | pairs[:, 1::2] << np.uint64(16) | _INSIDE
    return np.ascontiguousarray(words).view(np.uint8).reshape(count, side // BLOCK, side // BLOCK, GREY_CHANNELS)


def _colour(stack: torch.Tensor, side: int) -> npt.NDArray[np.uint8]:
    """Blocks (n, side / 2, side / 2, 16) of colour slices (n, h, w, 3)."""
    half = side // BLOCK
    cut = _resized(stack.permute(0, 3, 1, 2), side).unflatten(3, (half, BLOCK)).unflatten(2, (half, BLOCK))
    found = np.full((len(stack), half, half, COLOUR_CHANNELS), 255, np.uint8)
    pixels = cut.permute(0, 2, 4, 3, 5, 1).numpy()  # n, block row, block column, row, column, channel
    found[..., : 3 * _PIXELS] = pixels.reshape(len(stack), half, half, 3 * _PIXELS)
    return found


def _resized(stack: torch.Tensor, side: int) -> torch.Tensor:
    """Short side resized to `side`, centre cropped: uint8 (n, c, h, w) to (n, c, side, side)."""
    height, width = stack.shape[2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    if size != (height, width):
        stack = interpolate(stack, size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return stack[:, :, top : top + side, left : left + side]
