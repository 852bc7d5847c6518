"""An encoder compiled by OpenVINO for the processor at hand, in bfloat16 or in calibrated 8-bit integers.

Batch norm is folded into the convolutions and the normalisation into the first of them, so that the compiled network
takes bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.quantisation import ADDITIONS, Calibration, Floats, fused, owed, rounded_to_bytes
from scanloop.embedding.squares import CHANNELS
from scanloop.errors import ConfigError

Forward = Callable[[npt.NDArray[np.uint8]], Floats]


def compile_encoder(
    encoder: Encoder, preprocess: Preprocess, batch_size: int, threads: int, calibration: Calibration | None = None
) -> Forward:
    """The encoder as a function of bytes, for batches of exactly `batch_size`.

    The same batch gives the same bits on the same processor, and an image's vector does not depend on the others.

    Args:
        encoder: In evaluation mode.
        preprocess: Its mean, standard deviation, channel order and input side are built in.
        batch_size: Images a call.
        threads: Threads a call may use.
        calibration: For int8; None computes in bfloat16 (in float32 on processors without it).

    Returns:
        Function from uint8 (batch_size, s, s, 4), as `squares` makes them, to float32 (batch_size, dimension).

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            "embed.precision bf16 and int8 need OpenVINO: pip install 'scanloop[compute]', or set it to float32"
        ) from error
    options = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # several processes may share the cores
    }
    model = _Translation(fused(encoder), preprocess, calibration).model(batch_size)
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def forward(images: npt.NDArray[np.uint8]) -> Floats:
        request.infer([images], share_inputs=True)
        return np.array(request.get_output_tensor().data, dtype=np.float32)

    return forward


def fold_normalisation(weight: Floats, preprocess: Preprocess) -> Floats:
    """First convolution's weights (o, 3, h, w) for bytes: (o, 4, h, w) over red, green, blue and 255-where-image.

    The fourth channel carries the means, so that the zero padding keeps standing for the mean and not for black.
    """
    mean, std = (np.array(given, dtype=np.float64)[None, :, None, None] for given in (preprocess.mean, preprocess.std))
    scaled = weight.astype(np.float64) / std
    shift = -(scaled * mean).sum(axis=1, keepdims=True) / 255
    folded = np.concatenate([scaled[:, ::-1] if preprocess.bgr else scaled, shift], axis=1)
    return np.ascontiguousarray(folded, dtype=np.float32)


class _Translation:
    """Writes a fused encoder's graph in OpenVINO's operations, with those of quantisation where it is calibrated."""

    def __init__(self, graph: fx.GraphModule, preprocess: Preprocess, calibration: Calibration | None) -> None:
        from openvino import opset14

        self.op = opset14
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.preprocess = preprocess
        self.calibration = calibration
        self.values: dict[Any, Any] = {}

    def model(self, batch_size: int) -> Any:
        from openvino import Model

        side = self.preprocess.input_px
        images = self.op.parameter([batch_size, side, side, CHANNELS], np.uint8)
        result = None
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._input(images)
            elif node.op == "output":
                result = self.op.result(self.values[node.args[0]])
            else:
                self.values[node] = self._quantised(node, self._value(node))
        return Model([result], [images])

    def _input(self, images: Any) -> Any:
        values = self.op.transpose(self.op.convert(images, "f32"), self.op.constant(np.array([0, 3, 1, 2])))
        return values if self.calibration is None else self._fake_quantize(values, 0.0, 255.0, 256)

    def _value(self, node: fx.Node) -> Any:
        values, op = self.values, self.op
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._convolution(node, module)
        if isinstance(module, nn.ReLU):
            return op.relu(values[node.args[0]])
        if isinstance(module, nn.MaxPool2d):
            pad, rounding = _pair(module.padding), "ceil_torch" if module.ceil_mode else "floor"
            stride, dilation, kernel = (_pair(given) for given in (module.stride, module.dilation, module.kernel_size))
            return op.max_pool(values[node.args[0]], stride, dilation, pad, pad, kernel, rounding).output(0)
        if node.target in ADDITIONS:
            return op.add(values[node.args[0]], values[node.args[1]])
        if node.target is torch.cat:
            return op.concat([values[part] for part in node.args[0]], 1)  # type: ignore[union-attr]
        if node.op == "call_method" and node.target == "mean":
            return op.reduce_mean(values[node.args[0]], op.constant(np.array(node.kwargs["dim"])))
        raise TypeError(f"no translation of {node.format_node()}; embed with precision float32")

    def _convolution(self, node: fx.Node, conv: nn.Conv2d) -> Any:
        source: Any = node.args[0]
        reads_bytes = source.op == "placeholder"
        weight = conv.weight.detach().numpy()
        if reads_bytes:
            weight = fold_normalisation(weight, self.preprocess)
        weights, bias = self._rounded(node.name, weight, reads_bytes)
        if conv.bias is not None:
            bias = bias + conv.bias.detach().numpy()
        pad = _pair(conv.padding)
        result = self.op.convolution(self.values[source], weights, _pair(conv.stride), pad, pad, _pair(conv.dilation))
        return self.op.add(result, self.op.constant(bias.reshape(1, -1, 1, 1)))

    def _rounded(self, name: str, weight: Floats, reads_bytes: bool) -> tuple[Any, Floats]:
        """Weights, and the bias that makes good in the mean what rounding changes."""
        if self.calibration is None:
            if not reads_bytes:
                return self.op.constant(weight), np.zeros(len(weight), np.float32)
            rounded = torch.from_numpy(weight).bfloat16().float().numpy()
            return self.op.constant(rounded), -owed(weight, rounded, [0, 0, 0, 255])  # exact where the image is black
        means = np.array(self.calibration.means[name])
        if reads_bytes:
            means = means * self.preprocess.std + self.preprocess.mean
            means = np.append(means[::-1] if self.preprocess.bgr else means, 255)
        rounded, largest = rounded_to_bytes(weight)
        return self._fake_quantize(self.op.constant(weight), -largest, largest, 255), -owed(weight, rounded, means)

    def _quantised(self, node: fx.Node, value: Any) -> Any:
        if self.calibration is None or node.name not in self.calibration.bounds:
            return value
        low, high = self.calibration.bounds[node.name]
        # A signed byte reaches one step further down than up.
        return self._fake_quantize(value, low * 128 / 127, high, 256)

    def _fake_quantize(self, value: Any, low: Any, high: Any, levels: int) -> Any:
        bounds = [self.op.constant(np.asarray(bound, dtype=np.float32)) for bound in (low, high)]
        return self.op.fake_quantize(value, *bounds, *bounds, levels)


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value, value]
