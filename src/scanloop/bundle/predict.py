"""A bundle in memory: images in, calibrated probabilities out, through the engine that it was read with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.archive.decode import decode
from scanloop.bundle.abstention import Abstention
from scanloop.bundle.engines.engine import Engine, Squares
from scanloop.bundle.exemplars import Exemplars
from scanloop.bundle.points import OperatingPoints
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import Conformal
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Float, Image

Inputs = npt.NDArray[np.float32]
Forward = Callable[[Inputs], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """A classifier with all that a prediction needs.

    Attributes:
        classes: Names of the outputs, in their order.
        positive_class: The class whose probability tables and curves show.
        calibrator: From logits to probabilities.
        conformal: Thresholds of the sets of classes.
        preprocess: From a slice to the network's input.
        min_side_px: Encoded images with a shorter side are refused.
        max_pixels: Larger encoded images are refused before they are decoded.
        digest: SHA-256 over the whole bundle, in hexadecimal: names this very model.
        about: What `bundle.json` says: architecture, encoder, training, counts, metrics.
        engine: Runs the network.
        points: From probabilities to labels.
        abstention: When the model leaves an image to a reader.
        exemplars: Labelled images that an answer can be compared with.
        gates: How far a probability may be from the training's, by the precision of the engine.
    """

    classes: tuple[str, ...]
    positive_class: str
    calibrator: Calibrator
    conformal: Conformal
    preprocess: Preprocess
    min_side_px: int
    max_pixels: int
    digest: str
    about: dict[str, Any]
    engine: Engine
    points: OperatingPoints
    abstention: Abstention
    exemplars: Exemplars
    gates: Mapping[str, float]

    def predict(self, images: Sequence[Image], batch_size: int = 32) -> Float:
        """Calibrated probabilities of slices.

        Args:
            images: uint8 slices, (h, w) grey or (h, w, 3) RGB, of any sizes, range 0..255.
            batch_size: Images a forward pass; changes a probability by less than 1e-6.

        Returns:
            (n, classes), in the order of the images and of `classes`; rows sum to 1.
        """
        return self._predict(self.preprocess.square, images, batch_size)

    def predict_bytes(self, payloads: Sequence[bytes], batch_size: int = 32) -> Float:
        """As `predict`, from encoded images. At most one image is held decoded at a time.

        Raises:
            ImageError: One of them cannot be read.
        """
        return self._predict(lambda payload: self.preprocess.square(self.decode(payload)), payloads, batch_size)

    def decode(self, payload: bytes) -> Image:
        """Slice in an encoded image, within the limits that training obeyed.

        Raises:
            ImageError: It cannot be read, or is beyond a limit.
        """
        limits = {"min_side_px": self.min_side_px, "max_pixels": self.max_pixels}
        return decode(payload, **limits, short_side_px=self.preprocess.archive_px)

    def predict_squares(self, squares: Squares) -> Float:
        """Calibrated probabilities (n, classes) of squares, uint8 (n, s, s, 3) RGB, in one forward pass."""
        return self.calibrator(self.engine.run_squares(squares).logits)

    def _predict(self, square: Callable[[Any], Image], items: Sequence[Any], batch_size: int) -> Float:
        batches = [
            self.predict_squares(np.stack([square(item) for item in items[start : start + batch_size]]))
            for start in range(0, len(items), batch_size)
        ]
        return np.concatenate([np.empty((0, len(self.classes))), *batches])
