"""Torch from the bundle's weights: on a GPU in float32 or bfloat16, on the CPU where nothing else is installed."""

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from scanloop.bundle.engines.engine import EngineName, Floats, Material, Outputs, Precision, Squares, head_of
from scanloop.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("scanloop.serving")


class TorchEngine:
    """Runs the encoder in torch, channels last, with bytes normalised on the device; the head stays in numpy."""

    name: EngineName = "torch"

    def __init__(self, material: Material, precision: Precision, *, compiles: bool = False) -> None:
        """Make an engine, on the GPU where there is one.

        Args:
            material: Of the bundle.
            precision: "float32" or "bf16".
            compiles: Whether torch compiles the network, for each batch size anew.

        Raises:
            ConfigError: torch is not installed, the precision is none of its own, or the encoder is unknown here.
            BundleError: The weights do not fit the encoder.
        """
        try:
            import torch
        except ImportError as error:
            raise ConfigError("--engine torch: it is not installed; pip install 'scanloop[compute]'") from error
        if precision == "int8":
            raise ConfigError("--precision int8: torch serves float32 and bf16")
        self.precision = precision
        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if material.threads and self._device.type == "cpu":
            torch.set_num_threads(material.threads)
        self._head = head_of(material.weights)
        self._encoder: Any = self._loaded(material)
        if compiles:
            self._encoder = torch.compile(self._encoder, dynamic=True)
        self._turn = threading.Lock()  # two forward passes at once fight for the same threads
        shape, given = (1, 3, 1, 1), material.preprocess
        self._bgr = given.bgr
        self._mean, self._std = (
            torch.tensor(values, device=self._device).view(shape) for values in (given.mean, given.std)
        )

    def _loaded(self, material: Material) -> Any:
        from safetensors.torch import load

        from scanloop.embedding.encoders import new_encoder

        prefix = "encoder."
        try:
            encoder = new_encoder(material.encoder, seed=0)
        except KeyError as error:
            raise ConfigError(f"--engine torch: it knows no encoder {material.encoder}; take onnxruntime") from error
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in load(material.weights).items()
            if name.startswith(prefix)
        }
        try:
            encoder.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f"model.safetensors does not fit a {material.encoder}: {error}") from error
        return encoder.eval().requires_grad_(False).to(self._device, memory_format=self._torch.channels_last)  # type: ignore[call-overload]

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB."""
        images = self._torch.from_numpy(squares).to(self._device).permute(0, 3, 1, 2).float()
        if self._bgr:
            images = images.flip(1)
        return self._run((images - self._mean) / self._std)

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised."""
        return self._run(self._torch.from_numpy(inputs).to(self._device))

    def _run(self, images: "Tensor") -> Outputs:
        torch = self._torch
        images = images.to(memory_format=torch.channels_last)
        low = self.precision == "bf16"
        with self._turn, torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=low):
            embeddings = self._encoder(images).float().cpu().numpy()
        return self._head(np.ascontiguousarray(embeddings))
