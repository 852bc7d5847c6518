"""Small trainings without labels, and what it means that two are the same."""

import functools
from pathlib import Path

import numpy as np
import torch

from scanloop.archive.readers.phantom import Heads, draw_slices
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import Encoder, new_encoder
from scanloop.embedding.weights import load_weights
from scanloop.pretraining.trainer import Trained, train_encoder

CONFIG = PretrainConfig(seed=5, input_px=32, epochs=3, batch_size=16)


class Killed(Exception):
    """The process dies here."""


@functools.cache
def slices(count: int = 48) -> torch.Tensor:
    """Synthetic MRI-like slices, uint8 (n, 1, 32, 32)."""
    patients = np.arange(count) // 2
    heads = Heads(patients, patients % 2 == 0, contrast=0.35)
    return torch.from_numpy(np.stack(list(draw_slices(heads, 32, np.random.default_rng(0))))[:, None])


def train(folder: Path, die_after: int | None = None, config: PretrainConfig = CONFIG) -> tuple[Encoder, Trained]:
    """Train on the slices with a checkpoint in a folder, or die after an epoch."""

    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == die_after:
            raise Killed

    folder.mkdir(exist_ok=True)
    encoder = new_encoder(config.encoder, config.seed)
    preprocess = load_weights(encoder, None, 32)
    return encoder, train_encoder(encoder, slices(), preprocess, config, folder / "checkpoint.safetensors", on_epoch)


def assert_same_training(first: tuple[Encoder, Trained], second: tuple[Encoder, Trained]) -> None:
    """Same losses, health, weights and projection heads, to the bit."""
    assert first[1].progress == second[1].progress
    pairs = ((first[0], second[0]), (first[1].projector, second[1].projector))
    for states in ([module.state_dict() for module in pair] for pair in pairs):
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
