"""An answer as V2's output tensors: one definition for JSON, raw tensors and gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.asked import Answer

DATATYPES = {
    "probabilities": "FP64",
    "label": "BYTES",
    "confidence": "FP64",
    "set": "BOOL",
    "abstained": "BYTES",
    "strangeness": "FP64",
    "neighbour_ids": "BYTES",
    "neighbour_labels": "BYTES",
    "neighbour_distances": "FP64",
    "heat_map": "BYTES",
    "fault": "BYTES",
}
"""Outputs in their order. Those of neighbours and the heat map come where a request asks for them, faults where there
are any."""

ALWAYS = 6


@dataclass(frozen=True)
class Column:
    """An output tensor.

    Attributes:
        name: Key of `DATATYPES`.
        values: Array of numbers or bools, or of texts and bytes as objects.
    """

    name: str
    values: npt.NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of the type."""
        return DATATYPES[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    def raw(self) -> bytes:
        """The values as the binary extension and gRPC write them, little end first."""
        if self.datatype != "BYTES":
            return self.values.astype({"FP64": "<f8", "BOOL": "?"}[self.datatype]).tobytes()
        parts = []
        for value in self.values.ravel():
            payload = value if isinstance(value, bytes) else str(value).encode()
            parts += [len(payload).to_bytes(4, "little"), payload]
        return b"".join(parts)


def names_of() -> Sequence[str]:
    """Names of all outputs."""
    return tuple(DATATYPES)


def metadata(classes: int) -> list[dict[str, Any]]:
    """Metadata of the outputs that every answer has."""
    shapes = {"probabilities": [-1, classes], "set": [-1, classes]}
    return [
        {"name": name, "datatype": DATATYPES[name], "shape": shapes.get(name, [-1])} for name in names_of()[:ALWAYS]
    ]


def columns_of(answer: Answer) -> list[Column]:
    """Every output that an answer holds. A reason to abstain that is not there is an empty text.

    A strangeness that is unknown is -1: JSON has no NaN.
    """
    rows = answer.rows
    found: list[tuple[str, npt.NDArray[Any]]] = [
        ("probabilities", np.stack([row.probabilities for row in rows])),
        ("label", _objects([row.label for row in rows])),
        ("confidence", np.array([row.confidence for row in rows])),
        ("set", np.stack([row.members for row in rows])),
        ("abstained", _objects([row.abstained or "" for row in rows])),
        ("strangeness", np.array([-1.0 if row.strangeness is None else row.strangeness for row in rows])),
    ]
    listed = [row.neighbours for row in rows if row.neighbours is not None]
    if len(listed) == len(rows):
        most = max(len(one) for one in listed)
        for name, key, missing in (
            ("neighbour_ids", "slice_id", ""),
            ("neighbour_labels", "label", ""),
            ("neighbour_distances", "distance", -1.0),
        ):
            filled = [[one[key] for one in some] + [missing] * (most - len(some)) for some in listed]
            values = np.array(filled) if isinstance(missing, float) else _objects(filled, (len(rows), most))
            found.append((name, values.reshape(len(rows), most)))
    if any(row.heat_map is not None for row in rows):
        found.append(("heat_map", _objects([row.heat_map or b"" for row in rows])))
    if any(row.fault is not None for row in rows):
        found.append(("fault", _objects([row.fault or "" for row in rows])))
    return [Column(name, values) for name, values in found]


def _objects(values: Sequence[Any], shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """Texts or bytes as objects: numpy's own strings lose zeros at their end."""
    wanted = np.empty(shape or len(values), dtype=object)
    wanted[...] = values if shape is None or 0 not in shape else wanted
    return wanted
