"""Pretrain: an encoder for this archive, from its own unlabelled slices, from given weights, or from both."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scanloop.archive.shards import iterate_shards
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, write_bytes, write_json
from scanloop.build import scratch, step
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import new_encoder, write_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.weights import load_weights
from scanloop.errors import ArchiveError
from scanloop.pretraining.simclr import train_simclr
from scanloop.provenance import digest, file_digest


@dataclass(frozen=True)
class PretrainSummary:
    """What was trained: encoder, method, slices seen, epochs, first and last mean loss (null without training)."""

    encoder: str
    method: str
    slices: int
    epochs: int
    first_loss: float | None
    last_loss: float | None


@step("encoder", sources=lambda config: [config.weights])
def pretrain(config: PretrainConfig, *, catalog: Path, output: Path) -> PretrainSummary:
    """Encoder trained by SimCLR on the training part of a catalog, or taken from a weights file as it is.

    Only slices of the training part are seen, with no label. A killed training continues after its last whole epoch.

    Args:
        config: Encoder, weights, method and hyperparameters.
        catalog: Artifact of `ingest`.
        output: Directory for the encoder.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        ArchiveError: Fewer than eight slices are in the training part.
        LeakageError: A group crosses the splits.
    """
    encoder = new_encoder(config.encoder, config.seed)
    archive = read_json(catalog / "catalog.json")
    preprocess = replace(load_weights(encoder, config.weights, config.input_px), archive_px=archive["short_side_px"])
    losses: list[float] = []
    slices = 0
    if config.method == "simclr":
        images = _training_images(catalog, preprocess, config)
        slices = len(images)
        with tqdm(total=config.epochs, desc="pretrain", unit="epoch") as bar:

            def on_epoch(epoch: int, loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update(epoch - bar.n)

            losses = train_simclr(
                encoder, images, preprocess, config, scratch(output) / "checkpoint.safetensors", on_epoch
            )
    write_encoder(output, encoder.eval())
    rows = "".join(f"{epoch},{loss!r}\n" for epoch, loss in enumerate(losses, start=1))
    write_bytes(output / "loss.csv", f"epoch,loss\n{rows}".encode())
    write_json(output / "encoder.json", _facts(config, preprocess, archive, output, slices, encoder.dimension))
    return PretrainSummary(
        config.encoder, config.method, slices, len(losses), *((losses[0], losses[-1]) if losses else (None, None))
    )


def _training_images(catalog: Path, preprocess: Preprocess, config: PretrainConfig) -> torch.Tensor:
    """uint8 (n, 3, s, s) of at most `max_slices` training slices, drawn by seed."""
    manifest = proven_manifest(catalog)
    rows = manifest[manifest["split"] == "train"]
    if len(rows) < 8:
        raise ArchiveError(f"the training part holds {len(rows)} slices; self-supervised training needs at least 8")
    if len(rows) > config.max_slices:
        rows = rows.sample(config.max_slices, random_state=config.seed).sort_index()
    squares = [
        np.stack([preprocess.square(image) for image in images]) for _, _, images in iterate_shards(catalog, rows)
    ]
    stack = np.concatenate(squares)
    if preprocess.bgr:
        stack = stack[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))


def _facts(
    config: PretrainConfig, preprocess: Preprocess, archive: dict[str, Any], output: Path, slices: int, dimension: int
) -> dict[str, Any]:
    return {
        "encoder": config.encoder,
        "method": config.method,
        "dimension": dimension,
        "slices": slices,
        "preprocess": asdict(preprocess),
        "hyperparameters": config.model_dump(mode="json") | _weights(config.weights),
        "data_digest": archive["data_digest"],
        "digest": digest([file_digest(output / "encoder.safetensors"), asdict(preprocess)]),
    }


def _weights(weights: str | None) -> dict[str, str]:
    """Name and digest of a weights file, whatever the path to it; nothing for weights that are no file."""
    if weights in (None, "imagenet"):
        return {}
    path = Path(str(weights))
    return {"weights": path.name, "weights_sha256": file_digest(path)}
