"""Train an encoder and a head on labelled images and a pool; without a pool, or a method, it is supervised training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.repeatable import make_repeatable
from scanloop.learning.images.fixmatch import FixMatch
from scanloop.learning.images.mean_teacher import MeanTeacher
from scanloop.learning.losses import balanced_weights, classification_loss, mixed
from scanloop.pretraining.augment import PRESETS, Augmentation, augment
from scanloop.sources import Positive, Section, Share
from scanloop.types import Float

WARM_UP_SHARE, CLIP_NORM = 0.05, 1.0


class ImageTrainingConfig(Section):
    """How images are trained on."""

    method: Literal["supervised", "fixmatch", "mean_teacher"] = "supervised"
    modality: Literal["xray", "ct", "mri", "ultrasound"] = "mri"
    steps: int = Field(300, ge=1, description="Updates")
    batch_size: int = Field(32, ge=2, description="Labelled images an update")
    pool_ratio: int = Field(3, ge=1, le=16, description="Unlabelled images for each labelled one")
    learning_rate: Positive = 2e-3
    weight_decay: float = Field(5e-4, ge=0)
    threshold: Share = Field(0.95, description="FixMatch: least confidence")
    consistency: Positive = Field(10.0, description="Mean teacher: weight of its loss")
    ema_decay: Share = Field(0.99, description="Of the averaged weights, which are the model")
    class_weights: bool = Field(False, description="Weigh classes by their inverse frequency")
    focus: float = Field(0.0, ge=0, le=5, description="Gamma of the focal loss; 0 is cross-entropy")
    mixup: float = Field(0.0, ge=0, le=2, description="Alpha of MixUp among labelled images; 0 mixes none")


@dataclass(frozen=True)
class ImageSet:
    """Images to train on.

    Attributes:
        labelled: uint8 (n, 3, s, s).
        targets: (n, classes) probabilities; a given label is 1 for its class.
        pool: uint8 (m, 3, s, s), m >= 0.
        prior: (classes,) shares of the classes in the pool, for FixMatch's alignment; None aligns nothing.
    """

    labelled: Tensor
    targets: Float
    pool: Tensor
    prior: Float | None = None


class ImageClassifier(nn.Module):
    """An encoder and a linear head: normalised images (n, 3, s, s) in, logits (n, classes) out."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.dimension, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits before softmax."""
        logits: Tensor = self.head(self.encoder(images))
        return logits


def train_on_images(
    encoder: Encoder,
    images: ImageSet,
    preprocess: Preprocess,
    config: ImageTrainingConfig,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> ImageClassifier:
    """Averaged weights of an encoder and a head after `steps` updates; the encoder given is trained in place.

    Labelled batches and their views come from one source of chance and the pool's from another, so that without a
    pool every method gives the bits of supervised training.

    Args:
        encoder: Start.
        images: Labelled images and pool.
        preprocess: Mean and standard deviation of the encoder's input.
        config: Method and hyperparameters.
        on_step: Called after each update with its number, from 1, and its loss.
    """
    make_repeatable()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ImageClassifier(encoder, images.targets.shape[1]).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    labelled, pool = _Batches(images, preprocess, config, 0), _Batches(images, preprocess, config, 1)
    unlabelled = _method(config, images) if len(images.pool) else None
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config.steps)
        values, targets = labelled.labelled()
        loss = classification_loss(model(values), targets, labelled.weights, config.focus)
        if unlabelled is not None:
            weak, strong = pool.pool()
            with torch.no_grad():
                told = average(weak)
            ours, again = model(torch.cat([weak, strong])).chunk(2)
            loss = loss + unlabelled(ours, again, told)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        average.update_parameters(model)
        on_step(step + 1, loss.item())
    model.load_state_dict(average.module.state_dict())
    return model.eval()


def image_logits(model: ImageClassifier, images: Tensor, preprocess: Preprocess, batch_size: int = 256) -> Float:
    """Logits float64 (n, classes) of images uint8 (n, 3, s, s)."""
    mean, std = _normalisation(preprocess)
    with torch.inference_mode():
        parts = [model((block.float() / 255 - mean) / std).double().numpy() for block in images.split(batch_size)]
    return np.concatenate(parts)


class _Batches:
    """Endless batches of views; each source of chance is its own."""

    def __init__(self, images: ImageSet, preprocess: Preprocess, config: ImageTrainingConfig, source: int) -> None:
        self._images, self._config = images, config
        self._mean, self._std = _normalisation(preprocess)
        self._draw = np.random.default_rng([config.seed, source])
        self._generator = torch.Generator().manual_seed(config.seed * 2 + source)
        self._targets = torch.from_numpy(images.targets).float()
        self._weak, self._strong = (PRESETS[config.modality, strength] for strength in ("weak", "strong"))
        balanced = torch.from_numpy(balanced_weights(images.targets)).float()
        self.weights = balanced if config.class_weights else None

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Weak views of labelled images, and their targets."""
        rows = torch.from_numpy(self._draw.integers(len(self._images.labelled), size=self._config.batch_size))
        views = self._view(self._images.labelled[rows], self._weak)
        return mixed(views, self._targets[rows], self._config.mixup, self._draw)

    def pool(self) -> tuple[Tensor, Tensor]:
        """A weak and a strong view of unlabelled images."""
        size = self._config.batch_size * self._config.pool_ratio
        images = self._images.pool[torch.from_numpy(self._draw.integers(len(self._images.pool), size=size))]
        return self._view(images, self._weak), self._view(images, self._strong)

    def _view(self, images: Tensor, ranges: Augmentation) -> Tensor:
        return (augment(images.float() / 255, ranges, self._generator) - self._mean) / self._std


def _method(config: ImageTrainingConfig, images: ImageSet) -> FixMatch | MeanTeacher | None:
    if config.method == "fixmatch":
        prior = None if images.prior is None else torch.from_numpy(images.prior).float()
        return FixMatch(config.threshold, prior)
    return MeanTeacher(config.consistency, config.steps // 3) if config.method == "mean_teacher" else None


def _normalisation(preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) / 255 for values in (preprocess.mean, preprocess.std))
    return mean, std


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then the cosine of FixMatch, which ends at a fifth."""
    warm_up = max(1, int(steps * WARM_UP_SHARE))
    return (step + 1) / warm_up if step < warm_up else math.cos(7 * math.pi * step / (16 * steps))
