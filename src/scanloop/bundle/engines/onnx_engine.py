"""ONNX Runtime on the CPU, in float32: the engine that every other one is held against."""

from typing import Any

from scanloop.bundle.engines.engine import EngineName, Floats, Outputs, Precision, Squares
from scanloop.cores import usable_cores
from scanloop.embedding.preprocess import Preprocess

LOGITS, EMBEDDINGS = "logits", "embeddings"


class OnnxEngine:
    """Runs `model.onnx`; the same inputs give the same bits."""

    name: EngineName = "onnxruntime"
    precision: Precision = "float32"

    def __init__(self, model: bytes, preprocess: Preprocess, threads: int | None = None) -> None:
        """Make an engine.

        Args:
            model: Serialised ModelProto.
            preprocess: Normalises squares.
            threads: Threads a call may use; all cores by default.

        Raises:
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf: The bytes are no model.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # Waiting threads that spin take the cores from whoever decodes the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (self._input,) = (node.name for node in self._session.get_inputs())
        given = [node.name for node in self._session.get_outputs()]
        self._outputs = [name for name in (LOGITS, EMBEDDINGS) if name in given]
        self._preprocess = preprocess

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB."""
        return self.run_inputs(self._preprocess.normalised(squares))

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised."""
        found = dict(zip(self._outputs, self._session.run(self._outputs, {self._input: inputs}), strict=True))
        return Outputs(found[LOGITS], found.get(EMBEDDINGS))
