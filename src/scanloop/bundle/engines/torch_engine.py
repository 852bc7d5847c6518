"""Torch from the bundle's weights: on a GPU in float32 or bfloat16, on the CPU where nothing else is installed."""

from typing import TYPE_CHECKING, Any

import numpy as np

from scanloop.bundle.engines.engine import EngineName, Floats, Material, Outputs, Precision, Squares, head_of
from scanloop.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from scanloop.embedding.encoders import Encoder

PREFIX = "encoder."


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
        if self._device.type == "cpu":
            torch.set_num_threads(material.threads)
        self._head = head_of(material.weights)
        encoder = encoder_of(material).requires_grad_(False)
        self._encoder: Any = encoder.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiles:
            self._encoder = torch.compile(self._encoder, dynamic=True)
        shape, given = (1, 3, 1, 1), material.preprocess
        self._bgr = given.bgr
        self._mean, self._std = (
            torch.tensor(values, device=self._device).view(shape) for values in (given.mean, given.std)
        )

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
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=low):
            embeddings = self._encoder(images).float().cpu().numpy()
        return self._head(np.ascontiguousarray(embeddings))


def encoder_of(material: Material) -> "Encoder":
    """The bundle's encoder in torch, in evaluation mode, on the CPU.

    Raises:
        ConfigError: The encoder is unknown here.
        BundleError: The weights do not fit it.
    """
    from safetensors.torch import load

    from scanloop.embedding.encoders import new_encoder

    try:
        encoder = new_encoder(material.encoder, seed=0)
    except KeyError as error:
        raise ConfigError(f"torch knows no encoder {material.encoder}; take onnxruntime, in float32") from error
    weights = {
        name.removeprefix(PREFIX): tensor for name, tensor in load(material.weights).items() if name.startswith(PREFIX)
    }
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"model.safetensors does not fit a {material.encoder}: {error}") from error
    return encoder.eval()
