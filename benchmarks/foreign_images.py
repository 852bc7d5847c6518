"""Images that no brain model and no chest model has seen the like of: drawn by seed, or read from the sets at hand."""

import io
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from scanloop.types import Groups, Image

SIDE = 256
WORDS = ("the", "patient", "report", "findings", "no", "acute", "disease", "impression", "follow", "up", "in", "six",
         "months", "invoice", "total", "page", "chapter", "and", "of", "a", "to", "is", "was", "with")  # fmt: skip

Draw = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """Images of one kind, and the group of each: a patient, or itself."""

    images: list[Any]
    groups: Groups


def drawn(n: int, seed: int = 0) -> dict[str, Kind]:
    """So many images of each synthetic kind, half of them in colour; of constant ones each of 256 grey values."""
    found = {}
    for number, (name, draw) in enumerate(KINDS.items()):
        generator = np.random.default_rng([seed, number])
        found[name] = _each([draw(generator, row) for row in range(n)])
    found["constant"] = _each([np.full((SIDE, SIDE), value, np.uint8) for value in range(256)])
    return found


def from_tar(path: Any, suffix: str | tuple[str, ...], patient: str, most: int, seed: int = 0) -> Kind:
    """Encoded images of a tar, at most so many, drawn by seed; the pattern finds the patient in a name."""
    with tarfile.open(path) as tar:
        members = sorted((one for one in tar if one.name.endswith(suffix)), key=lambda one: one.name)
        rows = np.sort(np.random.default_rng(seed).permutation(len(members))[:most])
        payloads = [tar.extractfile(members[row]).read() for row in rows]  # type: ignore[union-attr]
    names = [re.search(patient, members[row].name) for row in rows]
    return Kind(payloads, np.array([name[0] if name else str(row) for row, name in zip(rows, names, strict=True)]))


def from_npz(path: Any, most: int, seed: int = 0) -> Kind:
    """Images of MedMNIST's training part, at most so many, drawn by seed, as PNG."""
    with np.load(path) as stored:
        images = stored["train_images"]
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:most])
    return Kind([_png(images[row]) for row in rows], rows.astype(str))


def _uniform(draw: Draw, row: int) -> Image:
    return draw.integers(0, 256, _shape(row), dtype=np.uint8)


def _gaussian(draw: Draw, row: int) -> Image:
    return _bytes(draw.normal(draw.uniform(60, 190), draw.uniform(10, 60), _shape(row)))


def _smooth(draw: Draw, row: int) -> Image:
    cells = int(draw.integers(3, 17))
    small = draw.integers(0, 256, (cells, cells, *_shape(row)[2:]), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(small).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))


def _text(draw: Draw, row: int) -> Image:
    """A page of words, upright, lying or square; every fourth one white on black."""
    width, height = ((595, 842), (842, 595), (512, 512))[row % 3]
    page = PIL.Image.new("L", (width, height), int(draw.integers(235, 256)))
    pen, size = PIL.ImageDraw.Draw(page), int(draw.integers(9, 24))
    font = PIL.ImageFont.load_default(size)
    for top in range(30, height - 30, int(size * 1.5)):
        line = " ".join(draw.choice(WORDS, int(width / size / 3)))
        pen.text((30, top), line, fill=int(draw.integers(0, 60)), font=font)
    pixels = np.asarray(page)
    return 255 - pixels if row % 4 == 3 else pixels


def _scene(draw: Draw, row: int) -> Image:
    """Sky, ground and round things in colour, every fourth one in grey: as smooth and bright as photographs."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    turn, horizon = draw.uniform(-0.4, 0.4), draw.uniform(0.2, 0.8)
    above = ((y + turn * (x - 0.5)) < horizon)[..., None]
    sky, ground = (draw.uniform(0, 255, 3) + y[..., None] * draw.uniform(-120, 120, 3) for _ in range(2))
    pixels = np.where(above, sky, ground)
    for _ in range(int(draw.integers(0, 8))):
        middle, radius, colour = draw.uniform(0, 1, 2), draw.uniform(0.03, 0.3), draw.uniform(0, 255, 3)
        inside = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2)[..., None]
        pixels = np.where(inside, 0.3 * pixels + 0.7 * colour, pixels)
    noisy = _bytes(pixels + draw.normal(0, draw.uniform(0, 8), pixels.shape))
    return noisy if row % 4 else noisy[..., 0]


KINDS: Mapping[str, Callable[[Draw, int], Image]] = {
    "uniform noise": _uniform,
    "gaussian noise": _gaussian,
    "smooth noise": _smooth,
    "text pages": _text,
    "synthetic scenes": _scene,
}


def _shape(row: int) -> tuple[int, ...]:
    return (SIDE, SIDE, 3) if row % 2 else (SIDE, SIDE)


def _bytes(values: Any) -> Image:
    return np.clip(values, 0, 255).astype(np.uint8)


def _each(images: list[Image]) -> Kind:
    return Kind([_png(image) for image in images], np.arange(len(images)).astype(str))


def _png(image: Image) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()
