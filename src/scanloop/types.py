"""The few small values that every part of the domain shares."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float: TypeAlias = npt.NDArray[np.float64]
"""float64 array, any shape."""

Single: TypeAlias = npt.NDArray[np.float32]
"""float32 array, any shape: what large sets are searched and clustered in."""

Half: TypeAlias = npt.NDArray[np.float16]
"""float16 array, any shape: stored embeddings."""

Vectors: TypeAlias = Half | Single | Float
"""Rows of numbers, (n, d), in any of these types."""

Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 image, (h, w) grey or (h, w, 3) RGB, range 0..255."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""int64 class indices, (n,), range 0..classes-1."""

Groups: TypeAlias = npt.NDArray[Any]
"""Group of each row, (n,): images of one patient and near-duplicates share one."""


@dataclass(frozen=True)
class Interval:
    """A measured value with its confidence interval.

    Attributes:
        value: Point estimate.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        n: Images behind the value.
        groups: Independent groups behind the value; the interval resamples these.
        confidence: Coverage that the interval aims at, in (0, 1).
        method: How the interval was computed: "bootstrap" or "exact"; "undefined" where the value is NaN, as AUROC on
            one class, and the bounds are all that it could be.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int
    confidence: float = 0.95
    method: str = "bootstrap"
