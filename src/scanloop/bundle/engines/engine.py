"""What an engine gives, whichever it is; the linear head is computed here, in float32, for all of the faster ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError

Floats = npt.NDArray[np.float32]
Squares = npt.NDArray[np.uint8]
"""uint8 (n, s, s, 3), resized and cropped, not yet normalised."""

EngineName = Literal["onnxruntime", "openvino", "torch"]
Precision = Literal["float32", "bf16", "int8"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Outputs:
    """What the network says of n images.

    Attributes:
        logits: float32 (n, classes), before softmax.
        embeddings: float32 (n, d), what the head takes; None from a bundle that was written before they were kept.
    """

    logits: Floats
    embeddings: Floats | None


class Engine(Protocol):
    """Runs the network of one bundle; safe to call from several threads at once."""

    @property
    def name(self) -> EngineName:
        """Which library runs the network."""
        ...

    @property
    def precision(self) -> Precision:
        """What convolutions are computed in; the head is in float32 always."""
        ...

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB, resized and cropped, not normalised."""
        ...

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised."""
        ...


@dataclass(frozen=True)
class Material:
    """Of what an engine is made.

    Attributes:
        onnx: Serialised ModelProto with the outputs "logits" and "embeddings".
        weights: Bytes of `model.safetensors`.
        encoder: Name of the encoder, as `embedding.encoders` knows it.
        preprocess: Gives the normalisation.
        threads: Threads a forward pass.
        passes: Forward passes at a time.
        sample: Squares, uint8 (n, s, s, 3), that eight-bit integers are calibrated with.
    """

    onnx: bytes
    weights: bytes
    encoder: str
    preprocess: Preprocess
    threads: int
    passes: int
    sample: Squares


@dataclass(frozen=True)
class Head:
    """The linear layer behind the embeddings, in float32.

    Attributes:
        weight: (classes, d).
        bias: (classes,).
    """

    weight: Floats
    bias: Floats

    def __call__(self, embeddings: Floats) -> Outputs:
        """Outputs of embeddings (n, d)."""
        return Outputs(embeddings @ self.weight.T + self.bias, embeddings)


def head_of(weights: bytes) -> Head:
    """The head in the content of `model.safetensors`.

    Raises:
        BundleError: There is none.
    """
    from safetensors.numpy import load

    tensors: Mapping[str, Floats] = load(weights)
    try:
        return Head(tensors["head.weight"], tensors["head.bias"])
    except KeyError as error:
        raise BundleError(
            f"model.safetensors holds no {error.args[0]}: only --engine onnxruntime runs this bundle"
        ) from error
