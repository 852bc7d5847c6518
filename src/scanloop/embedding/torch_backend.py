"""Torch as what computes vectors: in float32 on the CPU, and in float32, bfloat16 or float16 on a GPU."""

import copy
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ConfigError
from scanloop.types import Half, Image

logger = logging.getLogger("scanloop")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type that convolutions and products compute in, by precision; float32 is not cast."""


class TorchBackend:
    """Runs an encoder in torch, channels last (1.6x faster than channels first on a CPU, and what tensor cores take).

    Bytes go to the device and are normalised there, a quarter of what floats would take on the bus. On a GPU they lie
    in pinned memory, so that copies run beside the computing, and a batch is waited for only when its vectors are
    asked for.
    """

    concurrent = False

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        precision: str,
        device: str,
        batch_size: int,
        compiles: bool = False,
    ) -> None:
        """Make a backend.

        Args:
            encoder: In evaluation mode; moved to the device.
            preprocess: What its input needs.
            precision: "float32", "bf16" or "fp16".
            device: "cpu" or "cuda".
            batch_size: Most images of a batch; a compiled network gets batches of exactly this size.
            compiles: Whether torch compiles the network, on a GPU into a CUDA graph; where it cannot, it runs as it is.

        Raises:
            ConfigError: There is no such device, or it does not compute in this precision.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("embed.device cuda: torch finds no GPU here; set embed.device to cpu or auto")
        if precision not in {"float32", *AUTOCAST}:
            raise ConfigError(f"embed.precision {precision} is for CPUs; set embed.device to cpu, or it to bf16")
        if device == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ConfigError("embed.precision bf16: this GPU has none; set embed.precision to fp16")
        self._device, self._type = torch.device(device), AUTOCAST.get(precision)
        self._preprocess = preprocess
        copied = copy.deepcopy(encoder)  # int8 is calibrated with the caller's, in its own layout
        self._encoder: Callable[[Tensor], Tensor] = copied.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch_size, self._compiled = batch_size, False
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(preprocess.mean, device=self._device).view(shape)
        self._std = torch.tensor(preprocess.std, device=self._device).view(shape)

        if compiles:
            self._compile()

    def _compile(self) -> None:
        """Put a compiled network in the place of the plain one, once it has run."""
        plain, side = self._encoder, self._preprocess.input_px
        mode = "reduce-overhead" if self._device.type == "cuda" else "default"
        try:
            self._encoder, self._compiled = torch.compile(plain, dynamic=False, mode=mode), True
            self.start(torch.zeros((1, side, side, 3), dtype=torch.uint8))()
        except Exception as error:  # compilers that are missing, and their bugs, come as many errors
            self._encoder, self._compiled = plain, False
            logger.warning("embed: torch.compile failed (%s); the network runs as it is", str(error).split("\n")[0])

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """Squares of slices, uint8 (n, s, s, 3), in pinned memory where they will be copied to a GPU."""
        squares = torch.from_numpy(np.stack([self._preprocess.square(image) for image in images]))
        return squares.pin_memory() if self._device.type == "cuda" else squares

    def start(self, batch: Tensor) -> Callable[[], Half]:
        """Begin to compute prepared squares; what comes back waits for their float16 vectors (n, dimension)."""
        with torch.inference_mode(), torch.autocast(self._device.type, self._type, enabled=self._type is not None):
            vectors = self._encoder(self._normalised(self._filled(batch)))[: len(batch)].half()
        if self._device.type == "cpu":
            return lambda: _numbers(vectors)
        host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        host.copy_(vectors, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> Half:
            done.synchronize()
            _ = batch  # pinned memory must outlive its copy
            return _numbers(host)

        return wait

    def _filled(self, batch: Tensor) -> Tensor:
        """The batch, in the size that a compiled network was compiled for."""
        missing = self._batch_size - len(batch) if self._compiled else 0
        return torch.cat([batch, batch.new_zeros((missing, *batch.shape[1:]))]) if missing else batch

    def _normalised(self, batch: Tensor) -> Tensor:
        """Model input float32 (n, 3, s, s), channels last, equal to `Preprocess.__call__` to the bit."""
        moved = batch.to(self._device, non_blocking=True).permute(0, 3, 1, 2)  # of bytes that lie channels last
        colours = moved.flip(1).contiguous(memory_format=torch.channels_last) if self._preprocess.bgr else moved
        return (colours.float() - self._mean) / self._std


def _numbers(vectors: Tensor) -> Half:
    numbers: Half = vectors.numpy()
    return numbers
