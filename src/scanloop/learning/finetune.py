"""Two-stage training: a head on frozen features, then the last two blocks with discriminative learning rates.

The head starts the second stage where logistic regression left it, so that a random head cannot distort the features
(Kumar et al. 2022, arXiv:2202.10054). Earlier blocks take smaller steps (Howard and Ruder 2018, arXiv:1801.06146).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scanloop.config import RetrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.embedding.repeatable import make_repeatable
from scanloop.learning.heads import Head
from scanloop.learning.losses import balanced_weights, classification_loss, mixed
from scanloop.types import Float, Labels

TRAINED_BLOCKS = 2
CLIP_NORM = 1.0


class Classifier(nn.Module):
    """An encoder and a linear head: normalised images (n, 3, s, s) in, logits (n, classes) out."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(*head.weights.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weights.T))
            self.head.bias.copy_(torch.from_numpy(head.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Logits before softmax."""
        logits: Tensor = self.head(self.encoder(images))
        return logits

    def tail(self, maps: Tensor) -> Tensor:
        """Logits from the feature maps in front of the blocks that are trained."""
        logits: Tensor = self.head(Encoder.pool(self.encoder.run(maps, first=-TRAINED_BLOCKS)))
        return logits


@dataclass(frozen=True)
class Maps:
    """Training rows as the frozen part of the encoder leaves them, so that it runs once and not once an epoch.

    Attributes:
        values: float16 (n, c, s, s).
        targets: (n, classes) probabilities; a given label is 1 for its class.
        weights: (n,) weight of each row, 0..1: the chance that it takes part in an epoch. So a pool of thousands whose
            rows weigh little costs no more than what they weigh.
    """

    values: Tensor
    targets: Float
    weights: Float


def frozen_maps(encoder: Encoder, images: Tensor) -> Tensor:
    """Feature maps float16 (n, c, s, s) in front of the blocks that are trained, of normalised images (n, 3, s, s)."""
    with torch.inference_mode():
        return encoder.eval().run(images, last=-TRAINED_BLOCKS).half()


def finetune(encoder: Encoder, head: Head, maps: Maps, config: RetrainConfig, seed: int) -> Classifier:
    """Classifier whose head and last two blocks were trained on from the frozen stage; the encoder stays as it is.

    Batch norms keep their statistics: a few dozen slices would make them worse. Rates fall to zero by half a cosine
    (Loshchilov and Hutter, arXiv:1608.03983): at a constant rate the last few batches move a small set's model.

    Args:
        encoder: Pretrained.
        head: Logistic regression on its frozen features.
        maps: Training rows.
        config: Epochs, rates, batch size.
        seed: Seed of the batches' order.
    """
    make_repeatable()
    model = Classifier(copy.deepcopy(encoder), head).eval()  # evaluation mode freezes the norms, not the weights
    blocks = list(model.encoder.blocks)[-TRAINED_BLOCKS:]
    rates = [config.learning_rate * config.layer_decay ** (len(blocks) - 1 - depth) for depth in range(len(blocks))]
    groups: list[dict[str, Any]] = [
        {"params": list(block.parameters()), "lr": rate} for block, rate in zip(blocks, rates, strict=True)
    ]
    groups.append({"params": list(model.head.parameters()), "lr": config.head_learning_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    parameters = [parameter for group in groups for parameter in group["params"]]
    weights = torch.from_numpy(balanced_weights(maps.targets)).float() if config.class_weights else None
    draw = np.random.default_rng([seed, 1])
    batches = list(_batches(maps.weights, config, seed))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(batches))
    for rows in batches:
        given = torch.from_numpy(maps.targets[rows]).float()
        values, targets = mixed(maps.values[rows].float(), given, config.mixup, draw)
        logits = model.tail(values)
        loss = classification_loss(logits, targets, weights, config.focus)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        schedule.step()
    return model


def tail_logits(model: Classifier, maps: Tensor, batch_size: int = 64) -> Float:
    """Logits float64 (n, classes) of rows given as frozen feature maps."""
    with torch.inference_mode():
        parts = [model.tail(block.float()).double().numpy() for block in maps.split(batch_size)]
    return np.concatenate(parts)


def _batches(weights: Float, config: RetrainConfig, seed: int) -> Iterator[Labels]:
    draw = np.random.default_rng(seed)
    for _ in range(config.finetune_epochs):
        order = draw.permutation(len(weights))
        rows = order[draw.random(len(weights))[order] < weights[order]]
        yield from (rows[start : start + config.batch_size] for start in range(0, len(rows), config.batch_size))
