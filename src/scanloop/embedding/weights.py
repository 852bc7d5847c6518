"""Pretrained weights: torchvision's checked download or a file at hand, each with its own preprocessing."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.timm_encoders import PREFIX, timm_colours, timm_state
from scanloop.embedding.vision import torchvision
from scanloop.errors import WeightsError
from scanloop.provenance import file_digest

IMAGENET = Preprocess()
CAFFE = Preprocess(mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), bgr=True)
"""Preprocessing of networks trained in Caffe: blue first, mean subtracted, not scaled."""

PLAIN = Preprocess(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))
"""Preprocessing of networks that start from random weights."""


_WEIGHTS = {
    "resnet18": "ResNet18_Weights",
    "resnet50": "ResNet50_Weights",
    "squeezenet1_1": "SqueezeNet1_1_Weights",
}
"""Name of torchvision's enumeration of weights, by encoder."""


def load_weights(encoder: Encoder, weights: str | None, input_px: int) -> Preprocess:
    """Fill an encoder with weights, in place; the preprocessing that they expect comes back.

    Args:
        encoder: To fill.
        weights: None keeps the random start; "imagenet" downloads torchvision's; else a file: an ONNX export of
            SqueezeNet 1.1 in Caffe's naming, or a torch state dict of torchvision's model of this name.
        input_px: Side of the input, in pixels.

    Raises:
        WeightsError: The file is missing, the download fails, or the weights fit another network.
    """
    colours = _colours(encoder.name)
    if weights is None:
        return replace(PLAIN, input_px=input_px)
    if weights == "imagenet":
        if encoder.name.startswith(PREFIX):
            _load_timm(encoder, timm_state(encoder.name))
        else:
            _load_torchvision(encoder, _download(encoder.name))
        return replace(colours, input_px=input_px)
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; give another path, or 'imagenet' to download them")
    _check_name(path)
    if path.suffix == ".onnx":
        _load_caffe_squeezenet(encoder, path)
        return replace(CAFFE, input_px=input_px)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")  # tensors only: no code can run
    except Exception as error:
        raise WeightsError(f"{path}: not a file of plain tensors that torch can read safely: {error}") from error
    load = _load_timm if encoder.name.startswith(PREFIX) else _load_torchvision
    load(encoder, state)
    return replace(colours, input_px=input_px)


def _colours(name: str) -> Preprocess:
    """Preprocessing that an encoder's ImageNet weights expect."""
    if not name.startswith(PREFIX):
        return IMAGENET
    mean, std = timm_colours(name)
    return replace(IMAGENET, mean=mean, std=std)


def _check_name(path: Path) -> None:
    """Return if a file holds what its name promises: torchvision ends names with the start of the bytes' SHA-256."""
    promised = re.search(r"-([0-9a-f]{8,64})\.(pth|th)$", path.name)
    if promised and not (found := file_digest(path)).startswith(promised[1]):
        raise WeightsError(
            f"{path}: the name promises a SHA-256 that starts with {promised[1]}, the bytes have {found[:8]}; "
            "fetch the file again"
        )


def _download(name: str) -> dict[str, Any]:
    models = torchvision().models
    weights = _WEIGHTS.get(name)
    if weights is None:
        known = ", ".join(_WEIGHTS)
        raise WeightsError(f"there are no ImageNet weights of {name}; pretrain it, or take one of {known}")
    try:
        state: dict[str, Any] = getattr(models, weights).IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except Exception as error:
        raise WeightsError(
            f"the ImageNet weights of {name} could not be downloaded ({error}); fetch the file on a machine with "
            f"internet from {getattr(models, weights).IMAGENET1K_V1.url} and set pretrain.weights to its path"
        ) from error
    return state


def _load_torchvision(encoder: Encoder, state: Any) -> None:
    """Copy a state dict in torchvision's naming into the blocks, which hold the same tensors in the same order."""
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise WeightsError(f"the weights of {encoder.name} are not a state dict: tensors by name, nothing around them")
    ours = encoder.state_dict()
    tail = ("fc.", "classifier.")
    theirs = [(name, tensor) for name, tensor in state.items() if not str(name).startswith(tail)]
    if len(theirs) != len(ours) or any(a.shape != b.shape for a, (_, b) in zip(ours.values(), theirs, strict=False)):
        raise WeightsError(f"the weights hold {len(theirs)} tensors that do not fit the {len(ours)} of {encoder.name}")
    encoder.load_state_dict({name: tensor for name, (_, tensor) in zip(ours, theirs, strict=True)})


def _load_timm(encoder: Encoder, state: Any) -> None:
    """Copy a state dict in timm's naming, with or without a classifier, into the one block."""
    net: Any = encoder.blocks[0].net
    ours = net.state_dict()
    if not isinstance(state, dict) or (missing := sorted(set(ours) - set(state))):
        lacks = f"lack {missing[0]}" if isinstance(state, dict) else "are no state dict"
        raise WeightsError(f"the weights of {encoder.name} {lacks}; take those of the same model")
    try:
        net.load_state_dict({name: state[name] for name in ours})
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit {encoder.name}: {str(error).splitlines()[-1].strip()}") from error


def _load_caffe_squeezenet(encoder: Encoder, path: Path) -> None:
    """Copy SqueezeNet 1.1 from an ONNX file in Caffe's naming: conv1, fire2/squeeze1x1, ..., fire9/expand3x3."""
    import onnx

    if encoder.name != "squeezenet1_1":
        raise WeightsError(f"{path}: ONNX weights are read for squeezenet1_1 only, not for {encoder.name}")
    try:
        tensors = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
        names = ["conv1"] + [
            f"fire{number}/{part}" for number in range(2, 10) for part in ("squeeze1x1", "expand1x1", "expand3x3")
        ]
        theirs = [tensors[f"{name}_{kind}_0"] for name in names for kind in ("w", "b")]
    except Exception as error:
        raise WeightsError(f"{path}: not a SqueezeNet 1.1 in Caffe's naming: {error}") from error
    ours = encoder.state_dict()
    if any(tuple(a.shape) != b.shape for a, b in zip(ours.values(), theirs, strict=True)):
        raise WeightsError(f"{path}: the tensors are not those of SqueezeNet 1.1")
    encoder.load_state_dict(
        {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in zip(ours, theirs, strict=True)}
    )
