"""Embeddings of a set by an encoder of a study: with ImageNet weights, random, or trained on the set without labels."""

from pathlib import Path

import numpy as np
import torch

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
from scanloop.studies.datasets import MODALITIES
from scanloop.studies.study import Bench
from scanloop.types import Half

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
    data = bench.data(dataset)
    settings = [bench.request.settings, data.digest, source, None if source == "imagenet" else seed]
    path = bench.cache / f"{dataset}-{source}-{digest(settings)[:16]}.npz"
    if not path.is_file():
        encoder, preprocess = _encoder(bench, dataset, source, seed, path.with_suffix(""))
        engine = Engine(encoder, preprocess, BATCH)
        found = {name: engine(part.images) for name, part in (("train", data.train), ("test", data.test))}
        temporary = path.with_name(f".{path.name}")
        np.savez(temporary, **found)  # type: ignore[arg-type]
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return stored["train"], stored["test"]


def _encoder(bench: Bench, dataset: str, source: str, seed: int, place: Path) -> tuple[Encoder, Preprocess]:
    request = bench.request
    if source == "imagenet":
        if request.weights is None:
            raise ConfigError("this arm needs --weights: a file with SqueezeNet 1.1, or 'imagenet' to download it")
        encoder = new_encoder("squeezenet1_1", 0)
        return encoder, load_weights(encoder, request.weights, request.imagenet_px)
    encoder = new_encoder(request.encoder, seed)
    preprocess = load_weights(encoder, None, request.input_px)
    if source == "ssl":
        _pretrain(bench, dataset, seed, encoder, preprocess, place)
    return encoder, preprocess


def _pretrain(bench: Bench, dataset: str, seed: int, encoder: Encoder, preprocess: Preprocess, place: Path) -> None:
    """Train an encoder on the training part's images; its losses and their curve are left beside its vectors."""
    config = EncoderConfig.model_validate(
        {name: getattr(bench.request, name) for name in ("encoder", "method", "input_px", "epochs", "batch_size",
                                                         "learning_rate", "precision")}
        | {"seed": seed, "modality": MODALITIES[dataset]}
    )  # fmt: skip
    squares = np.stack([preprocess.square(image) for image in bench.data(dataset).train.images])
    if (squares == squares[..., :1]).all():
        squares = squares[..., :1]
    images = torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))
    progress = train_encoder(encoder, images, preprocess, config, place.with_suffix(".checkpoint.safetensors")).progress
    rows = "".join(
        f"{epoch},{loss!r},{now.spread!r}\n"
        for epoch, (loss, now) in enumerate(zip(progress.losses, progress.health, strict=True), start=1)
    )
    write_bytes(place.with_suffix(".loss.csv"), f"epoch,loss,spread\n{rows}".encode())
    curve = loss_curve(progress.losses, progress.health, chance_loss(config, len(images)))
    write_bytes(place.with_suffix(".loss.png"), curve)
