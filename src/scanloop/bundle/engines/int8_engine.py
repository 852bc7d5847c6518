"""OpenVINO in eight-bit integers: the embedding engine's compiled network, calibrated with the reference slices.

Half the time of bfloat16. torch reads the encoder when the engine is made; predictions do not pass through it.
"""

import threading
from functools import cached_property

import numpy as np

from scanloop.bundle.engines.engine import EngineName, Floats, Material, Outputs, Precision, Squares, head_of
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.errors import ConfigError


class Int8Engine:
    """Runs bytes in int8. A request of floats runs in float32: what is no byte cannot be told exactly in bytes."""

    name: EngineName = "openvino"
    precision: Precision = "int8"

    def __init__(self, material: Material) -> None:
        """Make an engine; its network for grey images is compiled at once.

        Raises:
            ConfigError: OpenVINO or torch is not installed, or the encoder is none that is compiled.
            BundleError: The weights do not fit the encoder.
        """
        try:
            from scanloop.bundle.engines.torch_engine import encoder_of
            from scanloop.embedding.compiled import CompiledBackend
        except ImportError as error:
            raise ConfigError("--precision int8 reads the encoder by torch: pip install 'scanloop[compute]'") from error
        self._material = material
        self._head = head_of(material.weights)
        sample = material.preprocess.normalised(material.sample)
        cores = material.threads * material.passes
        self._backend = CompiledBackend(
            encoder_of(material), material.preprocess, cores, sample, streams=material.passes, batch=None
        )
        self._lock = threading.Lock()

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB; one colour image makes its whole batch one in colour."""
        red = squares[..., 0]
        grey = np.array_equal(red, squares[..., 1]) and np.array_equal(red, squares[..., 2])
        blocks = self._backend.prepare(list(red) if grey else list(squares))
        return self._head(self._backend.start(blocks)().astype(np.float32))

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised; in float32."""
        with self._lock:
            exact = self._exact
        return exact.run_inputs(inputs)

    @cached_property
    def _exact(self) -> OnnxEngine:
        return OnnxEngine(self._material.onnx, self._material.preprocess, self._material.threads)
