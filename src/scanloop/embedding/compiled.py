"""An encoder compiled by OpenVINO for the processor at hand, in bfloat16 or in calibrated 8-bit integers.

Batch norm is folded into the convolutions and the normalisation into the first of them, so that the compiled network
takes bytes: one network for grey slices, whose first convolution reads one channel, and one for those in colour.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.equalisation import equalise
from scanloop.embedding.pixels import BLOCK, COLOUR_CHANNELS, GREY_CHANNELS, pixel_blocks
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.quantisation import ADDITIONS, Calibration, Floats, calibrate, fused, owed, rounded_to_bytes
from scanloop.errors import ConfigError
from scanloop.types import Half, Image

Blocks = npt.NDArray[np.uint8]

BATCH = 8
"""Images a call. More run slower: what early layers hand on no longer fits a core's cache."""


class CompiledBackend:
    """Runs an encoder by OpenVINO, one thread a call, in as many threads at once as there are cores.

    The same slice gives the same bits on the same processor, whatever stands beside it in its batch, and however many
    cores are at work.
    """

    concurrent = True

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        cores: int,
        sample: npt.NDArray[np.float32] | None = None,
        *,
        streams: int | None = None,
        batch: int | None = BATCH,
    ) -> None:
        """Make a backend; each of its two networks is compiled when it is first needed.

        Args:
            encoder: In evaluation mode; its first convolution has a stride of 2.
            preprocess: Its mean, standard deviation, channel order and input side, which is even, are built in.
            cores: Calls that will be made at once.
            sample: Normalised images, float32 (n, 3, s, s), that int8 is calibrated with; None computes in bfloat16
                (in float32 on processors without it).
            streams: Calls that run at once, which share the cores; as many as cores by default.
            batch: Images a call, to which fewer are filled up; None takes any number as it comes, and then a slice's
                bits may depend on how many stand beside it.

        Raises:
            ConfigError: OpenVINO is not installed, or the encoder is none that is compiled.
        """
        try:
            import openvino  # noqa: F401  its absence is found before slices are read
        except ImportError as error:
            raise ConfigError(
                "embed.precision bf16 and int8 need OpenVINO: pip install 'scanloop[compute]', or set it to float32"
            ) from error
        if preprocess.input_px % BLOCK:
            raise ConfigError(
                f"embed.precision bf16 and int8 need an even pretrain.input_px, not {preprocess.input_px}"
            )
        self._graph, self._preprocess = fused(encoder), preprocess
        self._calibration: Calibration | None = None
        if sample is not None:
            equalise(self._graph, sample)
            self._calibration = calibrate(self._graph, sample)
        self._cores, self._streams, self._batch = cores, streams or cores, batch
        self._networks: dict[bool, Any] = {}
        self._compiling = threading.Lock()
        self._own = threading.local()

    def prepare(self, images: Sequence[Image]) -> Blocks:
        """Input of slices that are all grey or all in colour, as `pixel_blocks` makes it."""
        return pixel_blocks(images, self._preprocess)

    def start(self, batch: Blocks) -> Callable[[], Half]:
        """Compute a prepared batch of any length; what comes back gives its float16 vectors (n, dimension)."""
        request = self._request(batch.shape[-1] == GREY_CHANNELS)
        made = []
        size = self._batch or len(batch)
        for first in range(0, len(batch), size):
            some = batch[first : first + size]
            filled = some
            if len(some) < size:
                filled = np.concatenate([some, np.zeros((size - len(some), *some.shape[1:]), np.uint8)])
            request.infer([filled], share_inputs=True)
            made.append(request.get_output_tensor().data[: len(some)].astype(np.float16))
        vectors = np.concatenate(made)
        return lambda: vectors

    def _request(self, grey: bool) -> Any:
        """This thread's request to one of the networks."""
        requests = self._own.__dict__.setdefault("requests", {})
        if grey not in requests:
            with self._compiling:
                if grey not in self._networks:
                    self._networks[grey] = self._compile(grey)
            requests[grey] = self._networks[grey].create_infer_request()
        return requests[grey]

    def _compile(self, grey: bool) -> Any:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": self._cores,
            "NUM_STREAMS": self._streams,
            "ENABLE_CPU_PINNING": False,  # several processes may share the cores
        }
        model = _Translation(self._graph, self._preprocess, self._calibration, grey).model(self._batch or -1)
        return openvino.Core().compile_model(model, "CPU", options)


def fold_normalisation(weight: Floats, preprocess: Preprocess, grey: bool) -> Floats:
    """A convolution's weights (o, 3, h, w) for normalised channels as weights (o, c, h, w) for bytes.

    The last of the c channels, 2 for grey and 4 for red, green and blue, holds 255 where the image is: it carries the
    means, so that the zero padding keeps standing for the mean and not for black.
    """
    mean, std = (np.array(given, dtype=np.float64)[None, :, None, None] for given in (preprocess.mean, preprocess.std))
    scaled = weight.astype(np.float64) / std
    shift = -(scaled * mean).sum(axis=1, keepdims=True) / 255
    channels = scaled.sum(axis=1, keepdims=True) if grey else scaled[:, ::-1] if preprocess.bgr else scaled
    return np.concatenate([channels, shift], axis=1)


def fold_stride(weight: Floats, pad: Sequence[int]) -> tuple[Floats, list[int]]:
    """Weights (o, c, h, w) for a stride of 2 as weights (o, 4 c, h', w') for blocks of pixels and a stride of 1.

    Args:
        weight: Its last channel is that of the 255.
        pad: Padding above and to the left, in pixels.

    Returns:
        The weights, for channels in the order of `pixel_blocks`, and the padding above and to the left, in blocks.
    """
    outputs, channels, *sides = weight.shape
    before = [-(-one // BLOCK) for one in pad]
    after = [(side - 1 - one) // BLOCK for side, one in zip(sides, pad, strict=True)]
    height, width = (low + high + 1 for low, high in zip(before, after, strict=True))
    blocks = np.zeros((outputs, BLOCK, BLOCK, channels, height, width))
    for y in range(sides[0]):
        for x in range(sides[1]):
            (down, row), (across, column) = divmod(y - pad[0], BLOCK), divmod(x - pad[1], BLOCK)
            blocks[:, row, column, :, down + before[0], across + before[1]] = weight[..., y, x]
    pixels = blocks[:, :, :, :-1].reshape(outputs, -1, height, width)
    inside = blocks[:, :, :, -1].reshape(outputs, -1, height, width)
    return np.ascontiguousarray(np.concatenate([pixels, inside], axis=1), dtype=np.float32), before


class _Translation:
    """Writes a fused encoder's graph in OpenVINO's operations, with those of quantisation where it is calibrated."""

    def __init__(
        self, graph: fx.GraphModule, preprocess: Preprocess, calibration: Calibration | None, grey: bool
    ) -> None:
        from openvino import opset14

        self.grey = grey
        self.op = opset14
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.preprocess = preprocess
        self.calibration = calibration
        self.values: dict[Any, Any] = {}

    def model(self, batch: int) -> Any:
        """The network for so many images, -1 for any number."""
        from openvino import Model

        side = self.preprocess.input_px
        channels = GREY_CHANNELS if self.grey else COLOUR_CHANNELS
        images = self.op.parameter([batch, side // BLOCK, side // BLOCK, channels], np.uint8)
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
        raise _untranslated(f"it holds {node.format_node()}")

    def _convolution(self, node: fx.Node, conv: nn.Conv2d) -> Any:
        source: Any = node.args[0]
        weight = conv.weight.detach().numpy()
        stride, before = _pair(conv.stride), _pair(conv.padding)
        after, reads_bytes = before, source.op == "placeholder"
        if reads_bytes:
            weight, stride, before, after = self._on_blocks(conv)
        weights, bias = self._rounded(node.name, weight, reads_bytes)
        if conv.bias is not None:
            bias = bias + conv.bias.detach().numpy()
        result = self.op.convolution(self.values[source], weights, stride, before, after, _pair(conv.dilation))
        return self.op.add(result, self.op.constant(bias.reshape(1, -1, 1, 1)))

    def _on_blocks(self, conv: nn.Conv2d) -> tuple[Floats, list[int], list[int], list[int]]:
        """The first convolution on bytes in blocks: weights, stride, and padding before and after."""
        if _pair(conv.stride) != [BLOCK, BLOCK] or _pair(conv.dilation) != [1, 1]:
            raise _untranslated("its first convolution has no stride of 2")
        folded = fold_normalisation(conv.weight.detach().numpy(), self.preprocess, self.grey)
        pad, side = _pair(conv.padding), self.preprocess.input_px
        weight, before = fold_stride(folded, pad)
        wanted = [(side + 2 * one - kernel) // BLOCK + 1 for one, kernel in zip(pad, folded.shape[2:], strict=True)]
        found = [side // BLOCK + low - kernel + 1 for low, kernel in zip(before, weight.shape[2:], strict=True)]
        return weight, [1, 1], before, [want - have for want, have in zip(wanted, found, strict=True)]

    def _rounded(self, name: str, weight: Floats, reads_bytes: bool) -> tuple[Any, Floats]:
        """Weights, and the bias that makes good in the mean what rounding changes."""
        exact = self.calibration is None or name not in self.calibration.means
        if exact and not reads_bytes:
            return self.op.constant(weight), np.zeros(len(weight), np.float32)
        if self.calibration is None:
            rounded = torch.from_numpy(weight).bfloat16().float().numpy()
            black = self._byte_means(np.zeros(3))
            return self.op.constant(rounded), -owed(weight, rounded, black)  # exact where the image is black
        means = np.array(self.calibration.means[name])
        if reads_bytes:
            in_bytes = means * self.preprocess.std + self.preprocess.mean
            means = self._byte_means(in_bytes[::-1] if self.preprocess.bgr else in_bytes)
        rounded, largest = rounded_to_bytes(weight)
        return self._fake_quantize(self.op.constant(weight), -largest, largest, 255), -owed(weight, rounded, means)

    def _byte_means(self, colours: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean of each channel of the blocks, given those of red, green and blue."""
        pixel = [colours.mean()] if self.grey else colours
        return np.concatenate([np.tile(pixel, BLOCK * BLOCK), np.full(BLOCK * BLOCK, 255.0)])

    def _quantised(self, node: fx.Node, value: Any) -> Any:
        if self.calibration is None or node.name not in self.calibration.bounds:
            return value
        low, high = self.calibration.bounds[node.name]
        # A signed byte reaches one step further down than up.
        return self._fake_quantize(value, low * 128 / 127, high, 256)

    def _fake_quantize(self, value: Any, low: Any, high: Any, levels: int) -> Any:
        bounds = [self.op.constant(np.asarray(bound, dtype=np.float32)) for bound in (low, high)]
        return self.op.fake_quantize(value, *bounds, *bounds, levels)


def _untranslated(reason: str) -> ConfigError:
    return ConfigError(f"this encoder cannot be compiled for the CPU ({reason}); set embed.precision to float32")


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value, value]
