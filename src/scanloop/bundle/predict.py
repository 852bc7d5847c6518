"""A bundle in memory: images in, calibrated probabilities out, through ONNX Runtime alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.archive.decode import decode
from scanloop.bundle.abstention import Abstention
from scanloop.bundle.exemplars import Exemplars
from scanloop.bundle.points import OperatingPoints
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import Conformal
from scanloop.cores import usable_cores
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Float, Image

Inputs = npt.NDArray[np.float32]
Forward = Callable[[Inputs], npt.NDArray[np.float32]]
"""Logits (n, classes) of inputs (n, 3, s, s), both float32."""


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
        forward: The network.
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
    forward: Forward
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
        return self._predict(self.preprocess_one, images, batch_size)

    def predict_bytes(self, payloads: Sequence[bytes], batch_size: int = 32) -> Float:
        """As `predict`, from encoded images. At most one image is held decoded at a time.

        Raises:
            ImageError: One of them cannot be read.
        """
        return self._predict(lambda payload: self.preprocess_one(self.decode(payload)), payloads, batch_size)

    def decode(self, payload: bytes) -> Image:
        """Slice in an encoded image, within the limits that training obeyed.

        Raises:
            ImageError: It cannot be read, or is beyond a limit.
        """
        limits = {"min_side_px": self.min_side_px, "max_pixels": self.max_pixels}
        return decode(payload, **limits, short_side_px=self.preprocess.archive_px)

    def preprocess_one(self, image: Image) -> Inputs:
        """The network's input of one slice, float32 (1, 3, s, s)."""
        return self.preprocess([image])

    def predict_inputs(self, inputs: Inputs) -> Float:
        """Calibrated probabilities (n, classes) of preprocessed inputs (n, 3, s, s), in one forward pass."""
        return self.calibrator(self.forward(inputs))

    def _predict(self, prepare: Callable[[Any], Inputs], items: Sequence[Any], batch_size: int) -> Float:
        batches = [
            self.predict_inputs(np.concatenate([prepare(item) for item in items[start : start + batch_size]]))
            for start in range(0, len(items), batch_size)
        ]
        return np.concatenate([np.empty((0, len(self.classes))), *batches])


def onnx_forward(model: bytes, threads: int | None = None) -> Forward:
    """The network in an ONNX file, run by ONNX Runtime on the CPU; the same inputs give the same bits.

    Args:
        model: Serialised ModelProto.
        threads: Threads a forward pass may use; all cores by default.

    Raises:
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf: The bytes are no model.
    """
    session, name = _session(model, threads)
    first = [session.get_outputs()[0].name]

    def forward(inputs: Inputs) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(first, {name: inputs})[0]
        return logits

    return forward


def onnx_outputs(model: bytes, threads: int | None = None) -> Callable[[Inputs], dict[str, npt.NDArray[np.float32]]]:
    """The same network with all that it gives: "logits" (n, classes) and, from version 2 on, "embeddings" (n, d)."""
    session, name = _session(model, threads)
    outputs = [node.name for node in session.get_outputs()]
    return lambda inputs: dict(zip(outputs, session.run(outputs, {name: inputs}), strict=True))


def _session(model: bytes, threads: int | None) -> tuple[Any, str]:
    """ONNX Runtime's session, and the name of its input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Waiting threads that spin take the cores from whoever decodes the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())
    return session, str(name)


def available_cores() -> int:
    """Cores that this process may use."""
    return usable_cores()
