"""Labelled images that the model learnt from, as vectors: what an answer can be compared with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.bundle.arrays import from_npz, to_npz
from scanloop.calibration.strangeness import unit_rows
from scanloop.errors import BundleError
from scanloop.types import Float, Half, Labels, Single, Vectors

Ids = npt.NDArray[np.str_]
"""(n,) text of fixed width: slice ids."""

FILE = "exemplars.npz"


@dataclass(frozen=True)
class Exemplars:
    """Labelled training images in the embedding of the network that is served.

    Attributes:
        slice_ids: (n,) ids.
        labels: (n,) class indices.
        vectors: float16 (n, d), rows of length 1.
    """

    slice_ids: Ids
    labels: Labels
    vectors: Half
    _rows: Single = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not len(self.slice_ids) == len(self.labels) == len(self.vectors) or self.vectors.ndim != 2:
            raise BundleError("exemplars need an id, a label and a vector each")
        object.__setattr__(self, "_rows", self.vectors.astype(np.float32))

    def nearest(self, embeddings: Vectors, k: int) -> tuple[Ids, Labels, Float]:
        """The exemplars most alike to each image, the nearest first: exact, by one matrix product.

        It takes 2 n m d operations over m exemplars and holds n m distances: 2 MFLOP and 8 kB an image at 2,000
        exemplars of 512 numbers, which are 4 MB themselves.

        Args:
            embeddings: (n, d) of the network that is served, of any length.
            k: Exemplars an image; fewer come back where there are fewer.

        Returns:
            Ids, class indices and cosine distances (0..2), each (n, min(k, m)); of equal distances the first id.
        """
        if not len(self.slice_ids):
            nothing = np.empty((len(embeddings), 0))
            return nothing.astype(str), nothing.astype(np.int64), nothing
        distances = 1 - (unit_rows(embeddings) @ self._rows.T).astype(np.float64)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return self.slice_ids[order], self.labels[order], np.take_along_axis(distances, order, axis=1)

    def without(self, slice_ids: Any) -> "Exemplars":
        """Those whose ids are none of these."""
        kept = ~np.isin(self.slice_ids, np.array(sorted(slice_ids), dtype=str))
        return Exemplars(self.slice_ids[kept], self.labels[kept], self.vectors[kept])

    def to_npz(self) -> bytes:
        """Content of `exemplars.npz`."""
        return to_npz(slice_ids=self.slice_ids, labels=self.labels, embeddings=self.vectors)


def new_exemplars(slice_ids: Any, labels: Labels, embeddings: Vectors) -> Exemplars:
    """Exemplars of embeddings (n, d) of any length, sorted by id."""
    order = np.argsort(np.asarray(slice_ids, dtype=str), kind="stable")
    vectors = unit_rows(embeddings).astype(np.float16)
    return Exemplars(np.asarray(slice_ids, dtype=str)[order], np.asarray(labels, np.int64)[order], vectors[order])


def exemplars_from(payload: bytes, classes: int | None = None) -> Exemplars:
    """Exemplars in the content of `exemplars.npz`.

    Args:
        payload: The content.
        classes: How many there are; labels are not looked at when not given.

    Raises:
        BundleError: It holds none that this version understands, or a label is no class.
    """
    found = Exemplars(*from_npz(payload, {"slice_ids": "U", "labels": "i", "embeddings": "f"}))
    if classes is not None and not ((found.labels >= 0) & (found.labels < classes)).all():
        raise BundleError(f"{FILE}: the exemplars have a label that is none of the {classes} classes")
    return found


def no_exemplars() -> Exemplars:
    """Those of a bundle that has none."""
    return new_exemplars([], np.empty(0, np.int64), np.empty((0, 0)))
