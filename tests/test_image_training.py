"""Training on images: the losses of FixMatch and mean teacher, and what a pool may and may not change."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.weights import load_weights
from scanloop.learning.images.fixmatch import FixMatch
from scanloop.learning.images.mean_teacher import MeanTeacher
from scanloop.learning.images.trainer import (
    ImageClassifier,
    ImageSet,
    ImageTrainingConfig,
    image_logits,
    train_on_images,
)

CONFIG = ImageTrainingConfig(seed=1, steps=6, batch_size=8, pool_ratio=2)


def squares(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Noisy squares, bright above or below the middle."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = draw.integers(0, 80, size=(count, 1, 32, 32))
    for image, label in zip(images, labels, strict=True):
        image[0, 4 + 16 * label : 12 + 16 * label, 10:22] += 120
    return torch.from_numpy(np.repeat(images, 3, axis=1).astype(np.uint8)), labels


def trained(config: ImageTrainingConfig, pool: int = 24, seed: int = 0) -> tuple[ImageClassifier, float]:
    encoder = new_encoder("smallcnn", seed)
    preprocess = load_weights(encoder, None, 32)
    images, labels = squares(12, 0)
    others, _ = squares(24, 5)
    model = train_on_images(encoder, ImageSet(images, np.eye(2)[labels], others[:pool]), preprocess, config)
    test, truth = squares(60, 9)
    return model, float((image_logits(model, test, preprocess).argmax(axis=1) == truth).mean())


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
def test_without_a_pool_every_method_is_supervised_training_to_the_bit(method: str) -> None:
    supervised, _ = trained(CONFIG)
    alone, _ = trained(CONFIG.model_copy(update={"method": method}), pool=0)
    taught, _ = trained(CONFIG.model_copy(update={"method": method, "threshold": 0.5}))
    assert equal(supervised, alone)
    assert not equal(supervised, taught)


def test_training_learns_and_repeats_its_bits() -> None:
    config = CONFIG.model_copy(update={"method": "fixmatch", "steps": 60, "threshold": 0.8})
    model, accuracy = trained(config)
    assert accuracy > 0.9
    assert equal(model, trained(config)[0])


@pytest.mark.parametrize("changes", [{"class_weights": True, "focus": 2.0}, {"mixup": 0.4}])
def test_what_is_configured_changes_the_training(changes: dict[str, object]) -> None:
    encoder_with = [trained(CONFIG.model_copy(update=one))[0] for one in ({}, changes)]
    assert not equal(*encoder_with)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_fixmatch_counts_the_sure_ones_alone_and_divides_by_all() -> None:
    draw = np.random.default_rng(0)
    weak, strong = draw.normal(size=(2, 50, 3)) * 2
    total = 0.0
    for told, asked in zip(softmax(weak), softmax(strong), strict=True):
        if told.max() >= 0.8:
            total -= np.log(asked[told.argmax()])
    loss = FixMatch(0.8)(torch.from_numpy(weak), torch.from_numpy(strong), torch.empty(0))
    assert loss.item() == pytest.approx(total / 50, rel=1e-10)
    assert total > 0


def test_the_weak_view_gets_no_gradient() -> None:
    weak, strong = (torch.randn(8, 2, requires_grad=True) for _ in range(2))
    FixMatch(0.5)(weak, strong, torch.empty(0)).backward()
    assert weak.grad is None
    assert strong.grad is not None
    teacher = torch.randn(8, 2, requires_grad=True)
    MeanTeacher(1.0, 1)(weak, strong, teacher).backward()
    assert teacher.grad is None


def test_alignment_moves_the_running_mean_to_the_prior() -> None:
    draw = np.random.default_rng(1)
    prior = torch.tensor([0.3, 0.7], dtype=torch.float64)
    method = FixMatch(0.9, prior)
    for _ in range(300):
        said = torch.from_numpy(draw.dirichlet([6, 2], size=64))
        aligned = method.aligned(said)
    torch.testing.assert_close(aligned.sum(dim=1), torch.ones(64, dtype=torch.float64))
    plain = said / torch.tensor([0.75, 0.25]) * prior
    torch.testing.assert_close(aligned, plain / plain.sum(dim=1, keepdim=True), atol=0.03, rtol=0)


def ramp(step: int) -> float:
    return float(np.exp(-5 * (1 - min(1.0, step / 4)) ** 2))


@pytest.mark.parametrize("factor", [lambda step: 3.0 * ramp(step)])
def test_the_mean_teachers_loss_is_a_squared_distance_weighed_in_by_degrees(factor: Callable[[int], float]) -> None:
    draw = np.random.default_rng(2)
    method = MeanTeacher(3.0, 4)
    for step in range(1, 7):
        strong, teacher = draw.normal(size=(2, 20, 3))
        expected = ((softmax(strong) - softmax(teacher)) ** 2).sum(axis=1).mean() * factor(step)
        found = method(torch.empty(0), torch.from_numpy(strong), torch.from_numpy(teacher))
        assert found.item() == pytest.approx(expected, rel=1e-10)


def test_permuting_a_batch_permutes_its_outputs() -> None:
    model, _ = trained(CONFIG)
    images, _ = squares(20, 3)
    preprocess = load_weights(new_encoder("smallcnn", 0), None, 32)
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_allclose(
        image_logits(model, images[torch.from_numpy(order)], preprocess),
        image_logits(model, images, preprocess)[order], atol=1e-5,
    )  # fmt: skip
