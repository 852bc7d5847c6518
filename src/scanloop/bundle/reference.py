"""A few slices with the probabilities that training gave them: whoever loads the bundle must get the same."""

import io
from collections.abc import Sequence

import numpy as np

from scanloop.bundle.arrays import to_npz as arrays_to_npz
from scanloop.bundle.engines.engine import Engine, Squares
from scanloop.calibration.calibrator import Calibrator
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError
from scanloop.types import Float, Image

GATES = {"float32": 1e-4, "bf16": 0.02, "int8": 0.05}
"""Of a bundle that states none: largest difference of a probability from the training's, by the engine's precision."""


def squares_of(preprocess: Preprocess, slices: Sequence[Image]) -> Squares:
    """Slices resized and cropped to the network's side."""
    return np.stack([preprocess.square(image) for image in slices])


def to_npz(squares: Squares, probabilities: Float) -> bytes:
    """The reference as a file without pickle; equal arrays give equal bytes."""
    return arrays_to_npz(images=squares, probabilities=probabilities)


def squares_in(payload: bytes) -> Squares:
    """The reference slices in the content of `reference.npz`."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        squares: Squares = stored["images"]
    return squares


def check_reference(engine: Engine, calibrator: Calibrator, payload: bytes, gate: float) -> None:
    """Return if an engine gives the reference slices their probabilities.

    Args:
        engine: Runs the bundle's network.
        calibrator: The bundle's.
        payload: Content of `reference.npz`.
        gate: Largest difference of a probability that the bundle allows this precision.

    Raises:
        BundleError: It gives others: it is broken on this machine, of another version, or too coarse for this network.
    """
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        squares, expected = stored["images"], stored["probabilities"]
    difference = largest_difference(calibrator(engine.run_squares(squares).logits), expected)
    if not difference <= gate:
        remedy = "install the version that constraints.txt names" if engine.precision == "float32" else "take float32"
        raise BundleError(
            f"{engine.name} in {engine.precision} gives the reference slices other probabilities than training did (by"
            f" {difference:.2g}; the bundle allows {gate:g}); {remedy}, and do not serve before"
        )


def largest_difference(probabilities: Float, expected: Float) -> float:
    """Largest absolute difference of two arrays; NaN where one holds a NaN, infinity where the shapes differ."""
    return float(np.abs(probabilities - expected).max()) if probabilities.shape == expected.shape else float("inf")
