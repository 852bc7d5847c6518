"""Draws slices that look like T1-weighted MRI of a head after contrast, with or without a lesion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.types import Image

Field = npt.NDArray[np.floating[Any]]
"""(n, s, s), or a shape that broadcasts to it.

float64: in float32 one grey value of one slice once differed between two runs of the same inputs. The cause was not
proven (numpy's path for arrays that lie close together in memory is suspected); in float64 a last bit cannot show.
"""


@dataclass(frozen=True)
class Heads:
    """What the slices of a batch of patients show.

    Attributes:
        patients: int64 (n,), the patient of each slice, counted from 0 within the batch.
        lesion: bool (n,), whether the slice shows a lesion.
        contrast: Mean brightness that a lesion adds to tissue, in 0..1; it varies from patient to patient.
    """

    patients: npt.NDArray[np.int64]
    lesion: npt.NDArray[np.bool_]
    contrast: float


def draw_slices(heads: Heads, size_px: int, generator: np.random.Generator) -> Image:
    """One slice a row; slices of one patient share anatomy and lesion, and differ as neighbouring slices do.

    Args:
        heads: What to draw.
        size_px: Side of a slice, in pixels.
        generator: Source of every random draw.

    Returns:
        uint8 (n, size_px, size_px), range 0..255.
    """
    draw = _Draw(heads.patients, size_px, generator)
    across, down = _head_coordinates(draw)
    coarse, fine = draw.texture(7, 0.7), draw.texture(18, 0.6)
    tissue = _anatomy(draw, across, down, coarse, fine)
    tissue += _vessels(draw, across, down)
    tissue += _lesion(draw, heads, across, down, coarse)
    tissue *= 1 + 0.16 * draw.texture(3, 1.0)  # the coil's sensitivity
    return _acquire(draw, tissue)


class _Draw:
    """Random parameters of a batch: those of a patient, those of a slice, and smooth fields."""

    def __init__(self, patients: npt.NDArray[np.int64], size_px: int, generator: np.random.Generator) -> None:
        self.patients, self.size_px, self.generator = patients, size_px, generator
        self.count = len(patients)
        self.batch = int(patients.max()) + 1 if len(patients) else 0

    def patient(self, low: float, high: float, wobble: float = 0.0) -> Field:
        """One uniform value a patient, plus a small one a slice, (n, 1, 1)."""
        own = self.generator.uniform(-wobble, wobble, self.count).astype(np.float64)
        value: Field = self.generator.uniform(low, high, self.batch).astype(np.float64)[self.patients] + own
        return value[:, None, None]

    def texture(self, cells: int, shared: float) -> Field:
        """Smooth noise of unit spread on a grid of cells; `shared` of its variance is common to a patient's slices."""
        own = self.generator.standard_normal((self.count, cells, cells), dtype=np.float32)
        common = self.generator.standard_normal((self.batch, cells, cells), dtype=np.float32)[self.patients]
        grid = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        spread = _spread(cells, self.size_px)
        field: Field = spread @ grid @ spread.T
        return field

    def noise(self) -> Field:
        """White noise of unit spread, (n, s, s)."""
        field: Field = self.generator.standard_normal((self.count, self.size_px, self.size_px), dtype=np.float32)
        return field


def _spread(cells: int, size_px: int) -> npt.NDArray[np.float64]:
    """Matrix (size_px, cells) that interpolates smoothly between cell centres, rows of unit length."""
    position = np.linspace(0, cells - 1, size_px)[:, None] - np.arange(cells)[None]
    weights = np.exp(-0.5 * (position / 0.6) ** 2)
    rows: npt.NDArray[np.float64] = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float64)
    return rows


def _head_coordinates(draw: _Draw) -> tuple[Field, Field]:
    """Coordinates in the head's own frame: the scalp lies at distance 1 from the origin; gently warped."""
    axis = np.linspace(-1, 1, draw.size_px)
    x = axis[None, None, :] - draw.patient(-0.08, 0.08, 0.01)
    y = axis[None, :, None] - draw.patient(-0.08, 0.08, 0.01)
    turn = draw.patient(-0.3, 0.3, 0.02)
    half_width, half_height = draw.patient(0.58, 0.8, 0.02), draw.patient(0.74, 0.94, 0.02)
    across = (np.cos(turn) * x + np.sin(turn) * y) / half_width
    down = (np.cos(turn) * y - np.sin(turn) * x) / half_height
    return across + 0.035 * draw.texture(4, 0.9), down + 0.035 * draw.texture(4, 0.9)


def _anatomy(draw: _Draw, across: Field, down: Field, coarse: Field, fine: Field) -> Field:
    """Scalp, skull, fluid, cortex, white matter, deep nuclei, ventricles and the fissure, brightness 0..1."""
    radius = np.sqrt(across**2 + down**2)
    grey, white, fluid = draw.patient(0.38, 0.5), draw.patient(0.54, 0.7), draw.patient(0.1, 0.2)
    inner = draw.patient(0.8, 0.86, 0.005)
    tissue: Field = draw.patient(0.45, 0.75) * _inside(1 - radius)
    tissue = _over(tissue, 0.06, _inside(inner + 0.1 - radius))
    tissue = _over(tissue, fluid, _inside(inner + 0.03 - radius))
    tissue = _over(tissue, grey, _inside(inner - radius))
    folds = 0.07 * fine + 0.03 * coarse
    tissue = _over(tissue, white, _inside(inner - 0.13 - radius + folds))
    opening, height = draw.patient(0.05, 0.13, 0.015), draw.patient(0.18, 0.36, 0.03)
    level, tilt = draw.patient(-0.15, 0.1, 0.02), draw.patient(0.15, 0.5, 0.03)
    mirrored = np.abs(across)
    nuclei = 1 - np.sqrt(((mirrored - 0.3) / 0.13) ** 2 + ((down - level - 0.05) / 0.2) ** 2)
    tissue = _over(tissue, grey + 0.04, _inside(0.2 * nuclei))
    along = (mirrored - opening - 0.03 - tilt * np.abs(down - level)) / opening
    ventricles = 1 - np.sqrt(along**2 + ((down - level) / height) ** 2)
    tissue = _over(tissue, fluid, _inside(0.12 * ventricles))
    fissure = _inside(0.012 - mirrored) * _inside(np.abs(down - level) - 0.3) * _inside(0.8 - radius)
    tissue = _over(tissue, fluid + 0.1, fissure)
    return tissue * (1 + 0.05 * coarse + 0.04 * fine)


def _vessels(draw: _Draw, across: Field, down: Field) -> Field:
    """Bright dots that every head has, so that brightness alone tells nothing."""
    brightness = np.zeros((draw.count, draw.size_px, draw.size_px))
    for _ in range(3):
        away, angle = draw.patient(0.1, 0.72, 0.03), draw.patient(0, 2 * np.pi, 0.1)
        square = (across - away * np.cos(angle)) ** 2 + (down - away * np.sin(angle)) ** 2
        strength = draw.patient(-0.2, 0.2)  # about half of the dots are not there
        brightness += np.maximum(strength, 0) * np.maximum(1 - square / draw.patient(0.03, 0.05) ** 2, 0)
    return brightness


def _lesion(draw: _Draw, heads: Heads, across: Field, down: Field, coarse: Field) -> Field:
    """A blob with an uneven border, some with a dark core, in a darker halo of oedema; nothing where there is none."""
    away, angle = draw.patient(0.12, 0.58, 0.02), draw.patient(0, 2 * np.pi, 0.06)
    x, y = across - away * np.cos(angle), down - away * np.sin(angle)
    stretch, size = draw.patient(0.7, 1.4, 0.05), draw.patient(0.14, 0.3, 0.02)
    distance = np.sqrt((x * stretch) ** 2 + (y / stretch) ** 2) / size + 0.14 * coarse
    strength = heads.contrast * draw.patient(0.5, 1.5, 0.1) * heads.lesion[:, None, None].astype(np.float64)
    core = draw.patient(-0.9, 0.6, 0.05)  # the share of the radius that is necrotic; most have none or little
    blob = _inside((1 - distance) * size) * (1 - 1.3 * _inside((core - distance) * size))
    halo = np.clip(1.9 - distance, 0, 1) * _inside(distance - 1)
    return strength * (blob - 0.3 * halo)


def _acquire(draw: _Draw, tissue: Field) -> Image:
    """Magnitude image with Rician noise (Gudbjartsson and Patz, 1995), windowed to 8 bits."""
    sigma = draw.patient(0.015, 0.05, 0.002)
    magnitude = np.sqrt((tissue + sigma * draw.noise()) ** 2 + (sigma * draw.noise()) ** 2)
    window = draw.patient(190, 260, 4)
    image: Image = np.clip(np.rint(window * magnitude), 0, 255).astype(np.uint8)
    return image


def _inside(depth: Field) -> Field:
    """Soft edge: 0 outside, 1 inside, over a width of 0.04."""
    mask = depth * 25.0
    mask += 0.5
    return np.clip(mask, 0, 1, out=mask)


def _over(below: Field, brightness: Field | float, mask: Field) -> Field:
    above = brightness - below
    above *= mask
    above += below
    return above
