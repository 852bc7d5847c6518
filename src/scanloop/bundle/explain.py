"""Where in an image the label comes from: what the label's probability loses when a part is covered.

Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901). For a network of global average pooling and a linear head the class
activation map (Zhou et al. 2016, arXiv:1512.04150) says it in one pass in place of 64, but needs the last feature maps:
`model.onnx` gives the pooled embeddings alone, since every engine is cut there, and maps of 7 x 7 would have to leave
the engine with each image. Occlusion asks the very engine that answered, whatever the network, and what it shows are
differences of the probability that was answered.
"""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import PIL.Image

from scanloop.bundle.predict import Bundle
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Float, Image, Single

Prepared = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""One image as an engine takes it: uint8 (s, s, 3) RGB, or float32 (3, s, s), normalised."""

GRID = 8
"""Cells along a side: 64 forward passes an image, of parts of 56 pixels each 28 pixels at 224."""

LEAST_DROP = 0.05
"""Drop that is drawn in full colour at least: what moves the probability by less stays pale."""

COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Anchors of the colour table, from no drop to the largest."""

OPACITY = 0.65


def covered(image: Prepared, preprocess: Preprocess, grid: int = GRID) -> Iterator[Prepared]:
    """Copies of an image, each with one part covered by the network's mean colour, row by row.

    A part is a cell of the grid and half a cell around it, so that parts overlap and none cuts what lies on an edge.
    """
    is_input = image.dtype == np.float32
    side = image.shape[1]
    mean = preprocess.mean[::-1] if preprocess.bgr else preprocess.mean
    edges = [_span(cell, side, grid) for cell in range(grid)]
    for top, bottom in edges:
        for left, right in edges:
            copy = image.copy()
            if is_input:
                copy[:, top:bottom, left:right] = 0.0  # the mean, normalised
            else:
                copy[top:bottom, left:right] = np.rint(mean).astype(np.uint8)
            yield copy


def drops(probability: float, probabilities: Float, grid: int = GRID) -> Single:
    """Heat map float32 (grid, grid): what the label's probability loses, -1..1; below 0 where covering raises it.

    Args:
        probability: Of the label, of the whole image.
        probabilities: (grid * grid,) of the label, of the covered copies in their order.
        grid: Cells along a side.
    """
    return (probability - probabilities).astype(np.float32).reshape(grid, grid)


def explain(bundle: Bundle, image: Prepared, label: int, batch: int = 8, grid: int = GRID) -> Single:
    """Heat map float32 (grid, grid) of a class's calibrated probability, by the bundle's engine.

    Args:
        bundle: What answers.
        image: As the engine takes it.
        label: Index of the class.
        batch: Images a forward pass.
        grid: Cells along a side.
    """

    def probabilities(images: list[Prepared]) -> Float:
        stack = np.stack(images)
        engine = bundle.engine
        outputs = engine.run_squares(stack) if stack.dtype == np.uint8 else engine.run_inputs(stack)  # type: ignore[arg-type]
        return bundle.calibrator(outputs.logits.astype(np.float64))[:, label]

    copies = list(covered(image, bundle.preprocess, grid))
    found = [probabilities(copies[start : start + batch]) for start in range(0, len(copies), batch)]
    return drops(float(probabilities([image])[0]), np.concatenate(found), grid)


def draw(image: Prepared, preprocess: Preprocess, heat: Single) -> bytes:
    """PNG of an image with a heat map over it; equal arguments give equal bytes.

    Colour is scaled to the largest drop, but to `LEAST_DROP` at least; where covering raises the probability there is
    none.
    """
    picture = _picture(image, preprocess)
    size = picture.shape[1], picture.shape[0]
    scaled = np.clip(heat / max(float(heat.max()), LEAST_DROP), 0, 1).astype(np.float32)
    strength = np.asarray(PIL.Image.fromarray(scaled).resize(size, PIL.Image.Resampling.BILINEAR))[..., None]
    levels = np.linspace(0, 1, len(COLOURS))
    colour = np.concatenate([np.interp(strength, levels, channel) for channel in np.array(COLOURS).T], axis=-1)
    opacity = OPACITY * np.sqrt(strength)
    mixed = np.rint(picture * (1 - opacity) + colour * opacity).astype(np.uint8)
    sink = io.BytesIO()
    PIL.Image.fromarray(mixed).save(sink, "PNG")
    return sink.getvalue()


def _span(cell: int, side: int, grid: int) -> tuple[int, int]:
    return max(0, round((cell - 0.5) * side / grid)), min(side, round((cell + 1.5) * side / grid))


def _picture(image: Prepared, preprocess: Preprocess) -> Image:
    """uint8 (s, s, 3) RGB of what the engine takes."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    values = image.transpose(1, 2, 0) * np.array(preprocess.std) + np.array(preprocess.mean)
    picture: Image = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(picture[..., ::-1]) if preprocess.bgr else picture
