"""SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of a slice attract, views of different slices repel."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from scanloop.artifacts import write_bytes
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.repeatable import make_repeatable
from scanloop.pretraining.augment import Augmentation, augment

WARM_UP_SHARE = 0.1


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy: each view must find its twin among the 2n - 1 others.

    Args:
        first: (n, d) projections of one view; need not be normalised.
        second: (n, d) projections of the other view, in the same order.
        temperature: > 0; smaller weighs near negatives more.

    Returns:
        Mean loss over the 2n views, scalar; ln(2n - 1) when all projections are equal.
    """
    count = len(first)
    views = functional.normalize(torch.cat([first, second]), dim=1)
    similarity = views @ views.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    twins = torch.arange(2 * count).roll(count)
    return functional.cross_entropy(similarity, twins)


@dataclass
class _Training:
    """Everything that a checkpoint must hold to continue bit for bit."""

    model: nn.ModuleDict
    optimizer: torch.optim.AdamW
    losses: list[float]

    def save(self, path: Path, epoch: int) -> None:
        tensors = {f"model.{name}": tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in state.items()}
        write_bytes(path, save(tensors, metadata={"epoch": str(epoch), "losses": json.dumps(self.losses)}))

    def load(self, path: Path) -> int:
        """Continue from a checkpoint; the number of epochs done comes back, 0 without a checkpoint."""
        if not path.is_file():
            return 0
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            facts = file.metadata()
        model = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(model)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.losses = json.loads(facts["losses"])
        return int(facts["epoch"])


def train_simclr(
    encoder: Encoder,
    images: Tensor,
    preprocess: Preprocess,
    config: PretrainConfig,
    checkpoint: Path,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> list[float]:
    """Train an encoder in place; the mean loss of each epoch comes back.

    The state is saved after each epoch. A call that finds a checkpoint continues from it and ends with the same bits as
    one that was never interrupted: each epoch draws from its own generator, seeded by (seed, epoch).

    Args:
        encoder: To train.
        images: uint8 (n, 3, s, s), range 0..255, n >= 1; labels play no part. Each epoch sees all but the rest of the
            last whole batch.
        preprocess: Mean and standard deviation of the encoder's input.
        config: Epochs, batch size, rates, temperature, seed.
        checkpoint: File for the state.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.
    """
    make_repeatable()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        width = encoder.dimension
        projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.projection))
    model = nn.ModuleDict({"encoder": encoder, "projector": projector}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    training = _Training(model, optimizer, [])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) / 255 for values in (preprocess.mean, preprocess.std))
    batches = len(images) // min(config.batch_size, len(images))
    for epoch in range(training.load(checkpoint), config.epochs):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for number, rows in enumerate(order.split(config.batch_size)[:batches]):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(epoch * batches + number, config.epochs * batches)
            batch = images[rows].float() / 255
            views = [(augment(batch, Augmentation(), generator) - mean) / std for _ in range(2)]
            first, second = projector(encoder(torch.cat(views))).chunk(2)
            loss = nt_xent(first, second, config.temperature)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        training.losses.append(total / batches)
        training.save(checkpoint, epoch + 1)
        on_epoch(epoch + 1, training.losses[-1])
    encoder.eval()
    return training.losses


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then a half cosine to zero (Loshchilov and Hutter, arXiv:1608.03983)."""
    warm_up = max(1, int(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
