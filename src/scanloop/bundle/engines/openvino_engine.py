"""OpenVINO on the CPU, in float32 or bfloat16: bytes in, the normalisation compiled into the network."""

import io
import threading
from functools import cached_property
from typing import Any

import numpy as np

from scanloop.bundle.engines.engine import EngineName, Floats, Material, Outputs, Precision, Squares, head_of
from scanloop.bundle.engines.onnx_engine import EMBEDDINGS
from scanloop.errors import ConfigError

HINTS = {"float32": "f32", "bf16": "bf16"}
"""OpenVINO's names of the precisions. Left to itself it takes bfloat16 wherever the processor has it."""


class OpenvinoEngine:
    """Runs `model.onnx` up to the embeddings; a network for bytes and, once one comes, one for floats."""

    name: EngineName = "openvino"

    def __init__(self, material: Material, precision: Precision) -> None:
        """Make an engine; its network for bytes is compiled at once.

        Raises:
            ConfigError: OpenVINO is not installed, or this processor has no such precision.
            BundleError: The bundle is older than embeddings.
        """
        try:
            import openvino
        except ImportError as error:
            raise ConfigError("--engine openvino: it is not installed; pip install 'scanloop[openvino]'") from error
        self._core: Any = openvino.Core()
        if precision not in HINTS:
            raise ConfigError(f"--precision {precision}: this network of openvino computes in {' or '.join(HINTS)}")
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError("--precision bf16: this processor has no bfloat16; take float32")
        self.precision = precision
        self._material = material
        self._head = head_of(material.weights)
        self._own = threading.local()
        self._lock = threading.Lock()
        _ = self._for_squares

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB."""
        return self._run("squares", self._for_squares, squares)

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised."""
        with self._lock:
            network = self._for_inputs
        return self._run("inputs", network, inputs)

    def _run(self, kind: str, network: Any, images: Any) -> Outputs:
        requests = self._own.__dict__
        if kind not in requests:
            requests[kind] = network.create_infer_request()
        requests[kind].infer([images], share_inputs=True)
        embeddings = requests[kind].get_output_tensor().data.astype(np.float32)
        return self._head(embeddings)

    @cached_property
    def _for_squares(self) -> Any:
        from openvino import Layout, Type
        from openvino.preprocess import ColorFormat, PrePostProcessor

        preprocess = self._material.preprocess
        steps = PrePostProcessor(self._network())
        image = steps.input()
        image.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC")).set_color_format(ColorFormat.RGB)
        image.model().set_layout(Layout("NCHW"))
        chain = image.preprocess().convert_element_type(Type.f32)
        if preprocess.bgr:
            chain = chain.convert_color(ColorFormat.BGR)
        chain.mean(list(preprocess.mean)).scale(list(preprocess.std))
        return self._compiled(steps.build())

    @cached_property
    def _for_inputs(self) -> Any:
        return self._compiled(self._network())

    def _network(self) -> Any:
        """The graph from the images to the embeddings, without the head."""
        from openvino import Model

        whole = self._core.read_model(io.BytesIO(self._material.onnx))
        outputs = [output for output in whole.outputs if EMBEDDINGS in output.get_names()]
        if not outputs:
            raise ConfigError("--engine openvino: the bundle gives no embeddings; run the step retrain again")
        return Model([output.get_node() for output in outputs], whole.get_parameters())

    def _compiled(self, network: Any) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self._material.threads * self._material.passes,
            "NUM_STREAMS": self._material.passes,
            "ENABLE_CPU_PINNING": False,  # the cores are shared with what decodes the next images
        }
        return self._core.compile_model(network, "CPU", options)
