"""Pretrain: an encoder for this archive, from its own unlabelled slices, from given weights, or from both."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tqdm import tqdm

from scanloop.archive.shards import iterate_shards
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, write_bytes, write_json
from scanloop.build import scratch, step
from scanloop.config import EncoderConfig, PretrainConfig
from scanloop.embedding.encoders import Encoder, concatenate, new_encoder, write_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.weights import load_weights
from scanloop.errors import ArchiveError
from scanloop.pretraining.augment import PRESETS
from scanloop.pretraining.distributed import TRAIN, led_by_the_first, share
from scanloop.pretraining.drawing import loss_curve
from scanloop.pretraining.trainer import Trained, chance_loss, train_encoder
from scanloop.provenance import Source, digest, file_digest


@dataclass(frozen=True)
class PretrainSummary:
    """What was trained: encoder, method, slices seen, epochs, first and last mean loss (null without training)."""

    encoder: str
    method: str
    slices: int
    epochs: int
    first_loss: float | None
    last_loss: float | None


def _train_along(config: PretrainConfig, *, catalog: Path, output: Path) -> None:  # noqa: ARG001  # the step's ports
    """What every process but the first does: the same training, of which it writes nothing."""
    encoder, preprocess = _start(config.trained, read_json(catalog / "catalog.json"))
    images = _training_images(catalog, preprocess, config.trained)
    train_encoder(encoder, images, preprocess, config.trained, Path("unread"))


@led_by_the_first(_train_along)
@step("encoder", sources=lambda config: [Source(weights) for weights in _weights_of(config)])
def pretrain(config: PretrainConfig, *, catalog: Path, output: Path) -> PretrainSummary:
    """Encoder trained by SimCLR or MoCo on the training part of a catalog, or taken from a weights file as it is.

    Only slices of the training part are seen, with no label. A killed training continues after its last whole epoch.
    Started by torchrun, one process a GPU trains, and the first writes. With `beside` this is how the second encoder
    is made, and the first one's vectors stand in front of its.

    Args:
        config: Encoder, weights, method and hyperparameters.
        catalog: Artifact of `ingest`.
        output: Directory for the encoder.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        ArchiveError: Fewer than eight slices are in the training part.
        LeakageError: A group crosses the splits.
        CollapseError: The training went wrong.
    """
    archive, plan = read_json(catalog / "catalog.json"), config.trained
    encoder, preprocess = _start(plan, archive)
    slices, trained = 0, None
    if plan.method != "none":
        images = _training_images(catalog, preprocess, plan)
        slices = len(images)
        share(TRAIN)
        trained = _trained(encoder, images, preprocess, plan, scratch(output) / "checkpoint.safetensors")
        _write_training(output, trained, plan, slices)
    if config.beside:
        first, own = _start(config, archive)
        encoder, preprocess = concatenate(first, own, encoder, preprocess), own
    write_encoder(output, encoder.eval())
    losses = trained.progress.losses if trained else []
    write_bytes(output / "loss.csv", _table(trained))
    facts = _facts(config, preprocess, archive, output, slices, encoder)
    write_json(output / "encoder.json", facts | {"stopped_early": bool(trained and trained.stopped_early)})
    return PretrainSummary(
        encoder.name, plan.method, slices, len(losses), *((losses[0], losses[-1]) if losses else (None, None))
    )


def _start(config: EncoderConfig, archive: dict[str, Any]) -> tuple[Encoder, Preprocess]:
    """Encoder before any training, and what its input needs."""
    encoder = new_encoder(config.encoder, config.seed)
    preprocess = load_weights(encoder, config.weights, config.input_px)
    return encoder, replace(preprocess, archive_px=archive["short_side_px"])


def _trained(
    encoder: Encoder, images: torch.Tensor, preprocess: Preprocess, config: EncoderConfig, checkpoint: Path
) -> Trained:
    with tqdm(total=config.epochs, desc="pretrain", unit="epoch") as bar:

        def on_epoch(epoch: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update(epoch - bar.n)

        return train_encoder(encoder, images, preprocess, config, checkpoint, on_epoch)


def _write_training(output: Path, trained: Trained, config: EncoderConfig, slices: int) -> None:
    """Write what tells of the training: its settings, its curve and the projection head, for training on."""
    settings = config.model_dump(mode="json", exclude={"beside"}) | _weights(config.weights)
    ranges = asdict(PRESETS[config.modality, config.augmentation])
    write_json(output / "ssl_config.json", settings | {"augmentation_ranges": ranges, "slices": slices})
    progress = trained.progress
    curve = loss_curve(progress.losses, progress.health, chance_loss(config, slices))
    write_bytes(output / "ssl_loss_curve.png", curve)
    head = {name: tensor.detach().contiguous() for name, tensor in trained.projector.state_dict().items()}
    write_bytes(output / "ssl_proj_head.safetensors", save(head))


def _table(trained: Trained | None) -> bytes:
    """`loss.csv`: an epoch a row."""
    rows = zip(trained.progress.losses, trained.progress.health, strict=True) if trained else ()
    lines = [
        f"{epoch},{loss!r},{now.spread!r},{now.rank!r},{now.cosine!r}\n"
        for epoch, (loss, now) in enumerate(rows, start=1)
    ]
    return ("epoch,loss,spread,effective_rank,mean_cosine\n" + "".join(lines)).encode()


def _training_images(catalog: Path, preprocess: Preprocess, config: EncoderConfig) -> torch.Tensor:
    """uint8 (n, 3, s, s), or (n, 1, s, s) where all are grey, of at most `max_slices` slices, drawn by seed."""
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
    if (stack == stack[..., :1]).all():
        stack = stack[..., :1]  # changed once for all channels, not in each by itself
    elif preprocess.bgr:
        stack = stack[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))


def _facts(
    config: PretrainConfig, preprocess: Preprocess, archive: dict[str, Any], output: Path, slices: int, encoder: Encoder
) -> dict[str, Any]:
    return {
        "encoder": encoder.name,
        "method": config.trained.method,
        "dimension": encoder.dimension,
        "slices": slices,
        "preprocess": asdict(preprocess),
        "hyperparameters": _hyperparameters(config),
        "data_digest": archive["data_digest"],
        "digest": digest([file_digest(output / "encoder.safetensors"), asdict(preprocess)]),
    }


def _hyperparameters(config: PretrainConfig) -> dict[str, Any]:
    """The section, in which weights files stand by name and digest."""
    beside = config.beside and {"beside": config.beside.model_dump(mode="json") | _weights(config.beside.weights)}
    return config.model_dump(mode="json") | _weights(config.weights) | (beside or {})


def _weights_of(config: PretrainConfig) -> list[str]:
    sections: list[EncoderConfig] = [config, *([config.beside] if config.beside else [])]
    return [section.weights for section in sections if section.weights]


def _weights(weights: str | None) -> dict[str, str]:
    """Name and digest of a weights file, whatever the path to it; nothing for weights that are no file."""
    if weights in (None, "imagenet"):
        return {}
    path = Path(str(weights))
    return {"weights": path.name, "weights_sha256": file_digest(path)}
