"""Embeddings of a set by an encoder of a study: with ImageNet weights, random, or trained on the set without labels."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scanloop.artifacts import write_bytes
from scanloop.config import EncoderConfig
from scanloop.embedding.encoders import Encoder, new_encoder
from scanloop.embedding.engine import Engine
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.weights import load_weights
from scanloop.errors import ConfigError
from scanloop.pretraining.drawing import loss_curve
from scanloop.pretraining.trainer import chance_loss, train_encoder
from scanloop.provenance import digest
from scanloop.studies.datasets import MODALITIES, Part
from scanloop.studies.study import Bench
from scanloop.types import Half, Labels

BATCH = 64


def vectors(bench: Bench, dataset: str, source: str, seed: int) -> tuple[Half, Half]:
    """Embeddings of a set's training and test part, float16 (n, d), computed once a study's folder.

    Args:
        bench: The study's.
        dataset: Set.
        source: "imagenet", "random", or "ssl": trained from the same random start on the training part's images.
        seed: Of the random start and the training.

    Raises:
        ConfigError: ImageNet weights are asked for and not given.
        CollapseError: The training went wrong.
    """
    data, path = bench.data(dataset), _place(bench, dataset, source, seed).with_suffix(".npz")
    if not path.is_file():
        encoder, preprocess = encoder_of(bench, dataset, source, seed)
        engine = Engine(encoder, preprocess, BATCH)
        found = {name: engine(part.images) for name, part in (("train", data.train), ("test", data.test))}
        temporary = path.with_name(f".{path.name}")
        np.savez(temporary, **found)  # type: ignore[arg-type]
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return stored["train"], stored["test"]


def encoder_of(bench: Bench, dataset: str, source: str, seed: int) -> tuple[Encoder, Preprocess]:
    """The encoder behind `vectors`, and what its input needs; a training that is done is read from its checkpoint.

    Raises:
        ConfigError: ImageNet weights are asked for and not given.
        CollapseError: The training went wrong.
    """
    request = bench.request
    if source == "imagenet":
        if request.weights is None:
            raise ConfigError("this arm needs --weights: a file with SqueezeNet 1.1, or 'imagenet' to download it")
        encoder = new_encoder("squeezenet1_1", 0)
        return encoder, load_weights(encoder, request.weights, request.imagenet_px)
    encoder = new_encoder(request.encoder, seed)
    preprocess = load_weights(encoder, None, request.input_px)
    if source == "ssl":
        _pretrain(bench, dataset, seed, encoder, preprocess, _place(bench, dataset, source, seed))
    return encoder, preprocess


def pixels(part: Part, rows: Labels, preprocess: Preprocess) -> Tensor:
    """Images of some rows of a part as an encoder's square input, uint8 (n, 3, s, s)."""
    squares = np.empty((len(rows), preprocess.input_px, preprocess.input_px, 3), np.uint8)
    for place, row in enumerate(rows):
        squares[place] = preprocess.square(part.images[row])
    return torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))


def _place(bench: Bench, dataset: str, source: str, seed: int) -> Path:
    """Files of one encoder, without their suffix: the name says all that they depend on."""
    settings = [bench.request.settings, bench.data(dataset).digest, source, None if source == "imagenet" else seed]
    return bench.cache / f"{dataset}-{source}-{digest(settings)[:16]}"


def _pretrain(bench: Bench, dataset: str, seed: int, encoder: Encoder, preprocess: Preprocess, place: Path) -> None:
    """Train an encoder on the training part's images; its losses and their curve are left beside its vectors."""
    data = bench.data(dataset).train
    config = EncoderConfig.model_validate(
        {name: getattr(bench.request, name) for name in ("encoder", "method", "input_px", "epochs", "batch_size",
                                                         "learning_rate", "precision", "augmentation")}
        | {"seed": seed, "modality": MODALITIES[dataset]}
    )  # fmt: skip
    images = pixels(data, np.arange(len(data.labels)), preprocess)
    if (images == images[:, :1]).all():
        images = images[:, :1].contiguous()
    progress = train_encoder(encoder, images, preprocess, config, place.with_suffix(".checkpoint.safetensors")).progress
    rows = "".join(
        f"{epoch},{loss!r},{now.spread!r}\n"
        for epoch, (loss, now) in enumerate(zip(progress.losses, progress.health, strict=True), start=1)
    )
    write_bytes(place.with_suffix(".loss.csv"), f"epoch,loss,spread\n{rows}".encode())
    curve = loss_curve(progress.losses, progress.health, chance_loss(config, len(images)))
    write_bytes(place.with_suffix(".loss.png"), curve)
