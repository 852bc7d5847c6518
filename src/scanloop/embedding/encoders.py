"""The encoders: images in, one vector out, as a chain of blocks so that the last ones can be trained alone."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from scanloop.artifacts import check_artifact, read_json, write_bytes
from scanloop.embedding.concatenated import JOINT, SCALE, Concatenated, parts_of
from scanloop.embedding.preprocess import Preprocess, preprocess_from
from scanloop.embedding.timm_encoders import PREFIX, timm_blocks
from scanloop.embedding.vision import torchvision
from scanloop.errors import ArtifactError


class Encoder(nn.Module):
    """A chain of convolutional blocks with global average pooling at its end.

    Attributes:
        name: Key of `ENCODERS`, "timm:" and the name of a model, or of two, as in "squeezenet1_1+smallcnn/4".
        blocks: The chain; (n, 3, s, s) in, (n, dimension, s', s') out.
        dimension: Length of an embedding.
    """

    def __init__(self, name: str, blocks: nn.ModuleList, dimension: int) -> None:
        super().__init__()
        self.name = name
        self.blocks = blocks
        self.dimension = dimension

    @property
    def first_dimension(self) -> int | None:
        """Leading numbers of an embedding that are the first of two encoders'; None where there is one."""
        block = self.blocks[0]
        return int(block.first.dimension) if isinstance(block, Concatenated) else None  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (n, dimension) of normalised images (n, 3, s, s), float32."""
        return self.pool(self.run(images))

    def run(self, maps: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Feature maps behind the blocks first..last (exclusive; None means to the end)."""
        for block in self.blocks[first:last]:
            maps = block(maps)
        return maps

    @staticmethod
    def pool(maps: Tensor) -> Tensor:
        """Global average (n, d) of feature maps (n, d, s, s)."""
        return maps.mean(dim=(2, 3))


def _smallcnn() -> tuple[nn.ModuleList, int]:
    """Four blocks of convolution, batch norm and ReLU that halve the side; 0.4 M parameters, for 28..96 pixels."""
    widths = (3, 32, 64, 128, 256)
    return nn.ModuleList(
        nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()
        )
        for fan_in, fan_out in pairwise(widths)
    ), widths[-1]


def _resnet(name: str) -> tuple[nn.ModuleList, int]:
    net = getattr(torchvision().models, name)(weights=None)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return nn.ModuleList([stem, net.layer1, net.layer2, net.layer3, net.layer4]), net.fc.in_features


def _squeezenet1_1() -> tuple[nn.ModuleList, int]:
    features = torchvision().models.squeezenet1_1(weights=None).features
    bounds = (0, 3, 6, 9, 10, 11, 12, 13)
    return nn.ModuleList(nn.Sequential(*features[start:stop]) for start, stop in pairwise(bounds)), 512


ENCODERS: Mapping[str, Callable[[], tuple[nn.ModuleList, int]]] = {
    "smallcnn": _smallcnn,
    "resnet18": partial(_resnet, "resnet18"),
    "resnet50": partial(_resnet, "resnet50"),
    "squeezenet1_1": _squeezenet1_1,
}
"""Encoders by name. The last two blocks are those that fine-tuning trains."""


def new_encoder(name: str, seed: int) -> Encoder:
    """Encoder with weights drawn from a seed.

    Args:
        name: Key of `ENCODERS`, "timm:" and the name of a model of timm, or two of them, as `concatenate` names them.
        seed: Of the weights.

    Raises:
        ConfigError: timm is not installed, or knows no such model.
    """
    if parts := parts_of(name):
        return _joined(name, new_encoder(parts[0], seed), new_encoder(parts[1], seed), parts[2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(name, *(timm_blocks(name) if name.startswith(PREFIX) else ENCODERS[name]()))


def concatenate(first: Encoder, preprocess: Preprocess, second: Encoder, other: Preprocess) -> Encoder:
    """Both encoders as one that takes the first one's input; its vectors are (first | second), each part of length 1.

    Args:
        first: Takes `preprocess`, whose side is a multiple of the other's.
        preprocess: Of the first, and of the whole.
        second: Takes `other`.
        other: Of the second.
    """
    shrink = preprocess.input_px // other.input_px
    whole = _joined(f"{first.name}{JOINT}{second.name}{SCALE}{shrink}", first, second, shrink)
    whole.blocks[0].translate(preprocess, other)  # type: ignore[operator]
    return whole


def _joined(name: str, first: Encoder, second: Encoder, shrink: int) -> Encoder:
    block = Concatenated(first, second, shrink)
    return Encoder(name, nn.ModuleList([block]), first.dimension + second.dimension)


def write_encoder(directory: Path, encoder: Encoder) -> None:
    """Write `encoder.safetensors`; `encoder.json` is the step's."""
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in encoder.state_dict().items()}
    write_bytes(directory / "encoder.safetensors", save(state))


def read_encoder(directory: Path) -> tuple[Encoder, Preprocess]:
    """Encoder of an artifact, in evaluation mode, with the preprocessing that it was trained with.

    Raises:
        ArtifactError: The artifact is incomplete, or its weights do not fit its encoder.
    """
    check_artifact(directory, "encoder")
    facts = read_json(directory / "encoder.json")
    encoder = new_encoder(facts["encoder"], seed=0)
    try:
        encoder.load_state_dict(load_file(directory / "encoder.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{directory}: the weights do not fit a {facts['encoder']}: {error}") from error
    return encoder.eval(), preprocess_from(facts["preprocess"])
