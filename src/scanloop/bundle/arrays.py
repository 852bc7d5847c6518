"""Arrays in one file without pickle: numbers and texts of fixed width; equal arrays give equal bytes."""

import io
from typing import Any

import numpy as np

from scanloop.errors import BundleError


def to_npz(**arrays: np.typing.NDArray[Any]) -> bytes:
    """The arrays as an .npz."""
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for its flag
    return sink.getvalue()


def from_npz(payload: bytes, kinds: dict[str, str]) -> list[np.typing.NDArray[Any]]:
    """Arrays out of an .npz, in the order of the names asked for.

    Args:
        payload: The file.
        kinds: What numpy calls the kind of each array by name: "U" text, "f" float, "i" integer, "b" truth, "u".

    Raises:
        BundleError: One is missing, of another kind, or not as long as the first.
    """
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        if missing := sorted(set(kinds) - set(stored.files)):
            raise BundleError(f"arrays are missing: {', '.join(missing)}")
        found = [stored[name] for name in kinds]
    for name, array in zip(kinds, found, strict=True):
        if array.dtype.kind != kinds[name] or not array.ndim or len(array) != len(found[0]):
            raise BundleError(f"the array {name} has not the kind or the length that is due")
    return found
