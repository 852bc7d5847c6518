"""The training of an encoder by any method: batches, updates, the alarm, and a state that survives being killed."""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scanloop.config import EncoderConfig
from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.repeatable import make_repeatable
from scanloop.errors import CollapseError, ConfigError
from scanloop.pretraining import distributed
from scanloop.pretraining.augment import PRESETS, change, draw_changes
from scanloop.pretraining.averaging import Average
from scanloop.pretraining.checkpoint import Progress, State
from scanloop.pretraining.collapse import health
from scanloop.pretraining.method import Method
from scanloop.pretraining.moco import MoCo
from scanloop.pretraining.simclr import SimCLR

WARM_UP_SHARE = 0.1
GAIN = 1e-3
"""Least fall of an epoch's loss that early stopping takes for one."""

GRACE_EPOCHS = 3
"""Epochs before the alarm listens: projections of a random encoder lie close together, and have to spread first."""

ADVICE = "lower pretrain.learning_rate, raise pretrain.batch_size or start from weights"


@dataclass(frozen=True)
class Trained:
    """What a training left beside the encoder.

    Attributes:
        progress: Loss and health of each epoch.
        stopped_early: Whether patience ended it before its last epoch.
        projector: The projection head.
    """

    progress: Progress
    stopped_early: bool
    projector: nn.Module


def train_encoder(
    encoder: Encoder,
    images: Tensor,
    preprocess: Preprocess,
    config: EncoderConfig,
    checkpoint: Path,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> Trained:
    """Train an encoder in place; with `ema_decay` it ends as the average of its weights.

    The state is saved after each epoch. A call that finds a checkpoint continues from it and ends with the same bits as
    one that was never interrupted: each epoch draws from its own generators, seeded by (seed, epoch). With
    `accumulate` the gradients of an update are the mean over micro-batches, and negatives are those of the micro-batch.
    Where processes train together, each computes its part of every micro-batch, and negatives are those of all.

    Args:
        encoder: To train.
        images: uint8 (n, 3, s, s), or (n, 1, s, s) of grey slices, range 0..255, n >= 2; labels play no part. Each
            epoch sees all but the rest of the last whole batch.
        preprocess: Mean and standard deviation of the encoder's input.
        config: Method and hyperparameters.
        checkpoint: File for the state.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        CollapseError: The projections are all but one point, or the loss is no number.
        ArtifactError: The checkpoint is of another training.
        ConfigError: A micro-batch cannot be cut into equal parts for the processes, or there is no GPU.
    """
    make_repeatable()
    device = _device(config)
    batch_size = _batch_size(len(images), config)
    method = _new_method(encoder, len(images), batch_size, config).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if distributed.joined() and device.type == "cuda":
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    average = Average(method.encoder, config.ema_decay) if config.ema_decay else None
    state = State(method, optimizer, average)
    state.load(checkpoint, config)
    epochs = _Epochs(images, preprocess, config, state, batch_size, device)
    while len(state.progress.losses) < config.epochs and not _stale(state.progress.losses, config):
        epochs.run()
        _refuse_collapse(state.progress, config)
        if distributed.rank() == 0:
            state.save(checkpoint, config)
            on_epoch(len(state.progress.losses), state.progress.losses[-1])
    encoder.load_state_dict((state.average or method).encoder.state_dict())
    encoder.cpu().eval()
    return Trained(state.progress, len(state.progress.losses) < config.epochs, method.projector.cpu())


class _Epochs:
    """One pass over the images after the other."""

    def __init__(
        self,
        images: Tensor,
        preprocess: Preprocess,
        config: EncoderConfig,
        state: State,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._images, self._config, self._state = images, config, state
        self._batch_size, self._device = batch_size, device
        self._ranges = PRESETS[config.modality, config.augmentation]
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) / 255 for values in (preprocess.mean, preprocess.std)
        )
        self._batches = len(images) // batch_size
        gpus = [device.index] if device.type == "cuda" else None
        self._model: Any = state.method
        if distributed.joined():
            self._model = DistributedDataParallel(state.method, device_ids=gpus, broadcast_buffers=False)

    def run(self) -> None:
        """Train for one epoch, and note its loss and health."""
        config, progress = self._config, self._state.progress
        epoch = len(progress.losses)
        changes = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        noise = torch.Generator(self._device).manual_seed(config.seed * 1_000_003 + epoch + 500_009)
        order = torch.randperm(len(self._images), generator=changes)
        total, last = 0.0, torch.empty(0)
        for number, rows in enumerate(order.split(self._batch_size)[: self._batches]):
            rate = _schedule(epoch * self._batches + number, config.epochs * self._batches)
            for group in self._state.optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            loss, last = self._update(rows, changes, noise)
            total += loss
        if not math.isfinite(total):
            raise CollapseError(f"the loss of epoch {epoch + 1} is no number; {ADVICE}")
        progress.losses.append(total / self._batches)
        progress.health.append(health(last))

    def _update(self, rows: Tensor, changes: torch.Generator, noise: torch.Generator) -> tuple[float, Tensor]:
        """Change the weights once; mean loss of the micro-batches, and the projections of the last one."""
        state, total = self._state, 0.0
        parts = rows.chunk(self._config.accumulate)
        state.optimizer.zero_grad()
        for number, part in enumerate(parts, start=1):
            waits = distributed.joined() and number < len(parts)
            with self._model.no_sync() if waits else nullcontext():
                first, second = self._projected(part, changes, noise)
                loss = state.method.loss(first, second, part)
                (loss / len(parts)).backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(state.method.parameters(), self._config.clip_norm)
        state.optimizer.step()
        state.method.after_update()
        if state.average is not None:
            state.average.update(state.method.encoder)
        return total / len(parts), first.detach()

    def _projected(self, part: Tensor, changes: torch.Generator, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Projections of all processes, float32 (n, projection), for two views of a micro-batch."""
        share = len(part) // distributed.size()
        own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
        images = self._images[part[own]].to(self._device).float() / 255
        views = []
        for _ in range(2):
            drawn = draw_changes(len(part), self._ranges, changes).of(own, self._device)
            grain = torch.randn((len(part), *images.shape[1:]), generator=noise, device=self._device)[own]
            view = (change(images, drawn, grain) - self._mean) / self._std
            views.append(view.contiguous(memory_format=torch.channels_last))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            first, second = self._model(*views)
        return distributed.gather(first.float()), distributed.gather(second.float())


def _device(config: EncoderConfig) -> torch.device:
    on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if not on_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("pretrain.device cuda: torch finds no GPU here; set pretrain.device to cpu or auto")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # products on a GPU repeat their bits only with it
    return torch.device("cuda", torch.cuda.current_device())


def _batch_size(count: int, config: EncoderConfig) -> int:
    """Slices an update: as configured, or all there are, in equal micro-batches of equal parts."""
    parts = config.accumulate * distributed.size()
    if config.batch_size % parts:
        raise ConfigError(
            f"pretrain.batch_size {config.batch_size} cannot be cut into {config.accumulate} micro-batches for "
            f"{distributed.size()} processes; set it to a multiple of {parts}"
        )
    fits = min(config.batch_size, count) // parts * parts
    if fits < 2 * parts:
        raise ConfigError(f"{count} slices are too few for {parts} parts; lower pretrain.accumulate")
    return fits


def chance_loss(config: EncoderConfig, count: int) -> float:
    """Loss of an encoder whose projections are all the same, for so many slices."""
    batch_size = _batch_size(count, config)
    if config.method == "moco":
        return math.log(_queue(count, batch_size, config) + 1)
    return math.log(2 * batch_size // config.accumulate - 1)


def _queue(count: int, batch_size: int, config: EncoderConfig) -> int:
    return min(config.queue, count // batch_size * batch_size)


def _new_method(encoder: Encoder, count: int, batch_size: int, config: EncoderConfig) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.method == "moco":
            queue = _queue(count, batch_size, config)
            return MoCo(encoder, config.projection, config.temperature, config.momentum, queue)
        return SimCLR(encoder, config.projection, config.temperature)


def _stale(losses: list[float], config: EncoderConfig) -> bool:
    """Whether the loss has not fallen for so many epochs; a patience of 0 is endless.

    MoCo's first epoch does not count: its queue is random then, and nothing is easier than to tell a slice from noise.
    """
    best, since = math.inf, 0
    for loss in losses[1 if config.method == "moco" else 0 :]:
        best, since = (loss, 0) if loss < best - GAIN else (best, since + 1)
    return 0 < config.patience <= since


def _refuse_collapse(progress: Progress, config: EncoderConfig) -> None:
    epoch, now = len(progress.losses), progress.health[-1]
    if epoch >= GRACE_EPOCHS and now.spread < config.least_spread:
        raise CollapseError(
            f"the encoder gives every slice the same projection after epoch {epoch}: spread {now.spread:.4f} of 1 "
            f"(alarm below {config.least_spread}), mean cosine {now.cosine:.4f}, effective rank {now.rank:.1f}; "
            + ADVICE
        )


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then a half cosine to zero (Loshchilov and Hutter, arXiv:1608.03983)."""
    warm_up = max(1, int(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
