"""Whether a fast precision still tells slices apart as float32 does, measured on the archive's own slices."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.config import EmbedConfig
from scanloop.embedding.blocks import unit
from scanloop.embedding.engine import Precision
from scanloop.errors import ConfigError
from scanloop.types import Half

logger = logging.getLogger("scanloop")

NEIGHBOURS = 10
DECIMALS = 6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """Vectors of some slices in one precision against those in float32.

    Attributes:
        slices: How many were compared.
        cosine_min: Least cosine of a slice's two vectors.
        cosine_mean: Their mean.
        neighbours_shared: Mean share of a slice's 10 nearest (of all others, where they are fewer) that both have.
    """

    slices: int
    cosine_min: float
    cosine_mean: float
    neighbours_shared: float


def fidelity(vectors: Half, exact: Half) -> Fidelity:
    """Compare vectors (n, d) with those of the same slices in float32, n at least 1."""
    one, other = unit(vectors), unit(exact)
    cosines = (one * other).sum(axis=1)
    shared = _neighbours_shared(one, other, min(NEIGHBOURS, len(one) - 1))
    least, mean = float(cosines.min()), float(cosines.mean())
    return Fidelity(len(one), round(least, DECIMALS), round(mean, DECIMALS), round(shared, DECIMALS))


def first_faithful(config: EmbedConfig, embed: Callable[[Precision], Half]) -> dict[Precision, Fidelity]:
    """Fidelity of the precision that is asked for and, as long as it is too low, of those to fall back on.

    Args:
        config: Precision asked for, least cosine, and whether another one may take its place.
        embed: Vectors of the judging slices in a precision; those of float32 are the measure.

    Returns:
        By precision, the last of which is faithful.

    Raises:
        ConfigError: It is not faithful, and none may take its place.
    """
    exact, found = embed("float32"), {}
    precision: Precision
    for precision in _in_turn(config.precision):
        found[precision] = seen = fidelity(embed(precision), exact)
        told = f"least cosine {seen.cosine_min:.4f} to float32 on {seen.slices} slices of this archive"
        if seen.cosine_min >= config.min_cosine:
            logger.info("embed: %s: %s, %.3f of neighbours shared", precision, told, seen.neighbours_shared)
            return found
        if not config.fall_back:
            slower = "float32" if precision in {"bf16", "fp16"} else "bf16"
            raise ConfigError(
                f"embed.precision {precision} is not faithful: {told}, embed.min_cosine is {config.min_cosine}; set "
                f"embed.precision to {slower}, or embed.fall_back to true"
            )
        logger.warning("embed: %s is not faithful: %s; falling back", precision, told)
    raise AssertionError("float32 is faithful to itself")


def _in_turn(precision: Precision) -> tuple[Precision, ...]:
    """The precision asked for, and slower ones after it."""
    return ("int8", "bf16", "float32") if precision == "int8" else (precision, "float32")


def _neighbours_shared(one: Floats, other: Floats, k: int) -> float:
    if k < 1:
        return 1.0
    nearest = []
    for vectors in (one, other):
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -np.inf)
        nearest.append(np.argsort(-similar, axis=1, kind="stable")[:, :k])
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*nearest, strict=True)]))
