"""From a torch module to ONNX bytes that are the same in every run, and hold no path of the machine that made them."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scanloop.errors import BundleError
from scanloop.types import Float

if TYPE_CHECKING:
    from torch import nn

INPUT, LOGITS, EMBEDDINGS = "images", "logits", "embeddings"

_OF_THE_EXPORTER = ("metadata_props", "doc_string")
"""Fields in which the exporter leaves stack traces, with absolute paths, and the names of Python classes."""


def to_onnx(model: "nn.Module", input_px: int) -> bytes:
    """A classifier as one ONNX file, float32, with a free batch size.

    Args:
        model: torch module in evaluation mode on the CPU, of two parts: `encoder` from images (n, 3, s, s) to
            embeddings (n, d), and `head` from these to logits (n, classes).
        input_px: The side s.

    Returns:
        A serialised ModelProto with input "images" and outputs "logits" and "embeddings"; equal weights give equal
        bytes.

    Raises:
        BundleError: The module has not these two parts.
    """
    import onnx
    import torch

    class Parts(torch.nn.Module):
        """Both outputs in one pass."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = _parts(model)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embeddings = self.encoder(images)
            return self.head(embeddings), embeddings

    with warnings.catch_warnings():  # the exporter warns of deprecations inside torch itself
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Parts().eval(),
            (torch.zeros(2, 3, input_px, input_px),),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[LOGITS, EMBEDDINGS],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None  # None comes from the legacy exporter alone
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto)
    payload: bytes = proto.SerializeToString(deterministic=True)
    return payload


def torch_logits(model: "nn.Module", inputs: npt.NDArray[np.float32]) -> Float:
    """Logits (n, classes) that torch itself gives, for comparison with an exported model."""
    import torch

    with torch.inference_mode():
        logits: Float = model(torch.from_numpy(inputs)).double().numpy()
    return logits


def _parts(model: "nn.Module") -> tuple["nn.Module", "nn.Module"]:
    encoder, head = (getattr(model, name, None) for name in ("encoder", "head"))
    if encoder is None or head is None:
        raise BundleError("a classifier is exported in two parts: give the module an `encoder` and a `head`")
    return encoder, head


def _strip(message: Any) -> None:
    """Clear the exporter's remarks in a protobuf message and in every message inside it."""
    for field, value in message.ListFields():
        if field.name in _OF_THE_EXPORTER:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _strip(inner)
