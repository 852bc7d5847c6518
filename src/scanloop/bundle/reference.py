"""A few slices with the probabilities that training gave them: whoever loads the bundle must get the same."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scanloop.bundle.arrays import to_npz as arrays_to_npz
from scanloop.bundle.predict import Bundle, Inputs
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError
from scanloop.types import Float, Image

GATES = {"float32": 1e-4, "bf16": 0.02, "int8": 0.05}
"""Of a bundle that states none: largest difference of a probability from the training's, by the engine's precision."""

Squares = npt.NDArray[np.uint8]
"""uint8 (n, s, s, 3), resized and cropped, not yet normalised."""


def squares_of(preprocess: Preprocess, slices: Sequence[Image]) -> Squares:
    """Slices resized and cropped to the network's side."""
    return np.stack([preprocess.square(image) for image in slices])


def inputs_of(preprocess: Preprocess, squares: Squares) -> Inputs:
    """Squares normalised, float32 (n, 3, s, s). They are not resized again, whatever the archive's side."""
    archive_px = max(preprocess.archive_px, preprocess.input_px)
    return dataclasses.replace(preprocess, archive_px=archive_px)(list(squares))


def to_npz(squares: Squares, probabilities: Float) -> bytes:
    """The reference as a file without pickle; equal arrays give equal bytes."""
    return arrays_to_npz(images=squares, probabilities=probabilities)


def check_reference(bundle: Bundle, payload: bytes) -> None:
    """Return if the bundle's network gives the reference slices their probabilities.

    Raises:
        BundleError: It gives others: the engine on this machine is broken or of another kind.
    """
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        squares, expected = stored["images"], stored["probabilities"]
    difference = largest_difference(bundle.predict_inputs(inputs_of(bundle.preprocess, squares)), expected)
    if not difference <= (gate := bundle.gates["float32"]):
        raise BundleError(
            f"this machine gives the reference slices other probabilities than training did (by {difference:.2g}; up to"
            f" {gate:g} is rounding); install the onnxruntime that constraints.txt names, and do not serve before"
        )


def largest_difference(probabilities: Float, expected: Float) -> float:
    """Largest absolute difference of two arrays; NaN where one holds a NaN, infinity where the shapes differ."""
    return float(np.abs(probabilities - expected).max()) if probabilities.shape == expected.shape else float("inf")
