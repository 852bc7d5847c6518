"""Losses of classifiers, against torch's own and against formulas written out."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from scanloop.learning.losses import balanced_weights, classification_loss, mixed

DRAW = np.random.default_rng(0)
LOGITS = torch.from_numpy(DRAW.normal(size=(40, 3)))
LABELS = DRAW.choice(3, size=40, p=[0.6, 0.3, 0.1])
TARGETS = torch.from_numpy(np.eye(3)[LABELS])


def test_hard_targets_give_torchs_cross_entropy_and_soft_ones_too() -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, torch.from_numpy(LABELS))
    assert classification_loss(LOGITS, TARGETS).item() == pytest.approx(expected.item(), abs=1e-12)
    soft = torch.from_numpy(DRAW.dirichlet(np.ones(3), size=40))
    expected = torch.nn.functional.cross_entropy(LOGITS, soft)
    assert classification_loss(LOGITS, soft).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("focus", [0.0, 1.0, 2.0])
def test_the_focal_loss_is_its_formula_row_by_row(focus: float) -> None:
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    total = 0.0
    for row, label in zip(LOGITS.numpy(), LABELS, strict=True):
        p = np.exp(row[label]) / np.exp(row).sum()
        total += -weights[label].item() * (1 - p) ** focus * np.log(p)
    found = classification_loss(LOGITS, TARGETS, weights, focus).item()
    assert found == pytest.approx(total / 40, rel=1e-10)


def test_the_focal_loss_has_finite_gradients_where_the_model_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    classification_loss(logits, torch.tensor([[1.0, 0.0]]), focus=0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_scikit_learns_and_a_missing_class_weighs_nothing() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(balanced_weights(np.eye(3)[LABELS]), expected)
    np.testing.assert_array_equal(balanced_weights(np.eye(3)[[0, 0, 1]]), [0.5, 1.0, 0.0])


def test_mixup_mixes_images_and_targets_in_the_same_share_with_the_same_partners() -> None:
    values = torch.arange(40.0).view(40, 1)
    targets = torch.cat([values / 40, 1 - values / 40], dim=1)
    images, told = mixed(values, targets, 0.4, np.random.default_rng(3))
    torch.testing.assert_close(told[:, 0], images[:, 0] / 40)
    assert not torch.equal(images, values)
    assert images.mean().item() == pytest.approx(values.mean().item())
    same, _ = mixed(values, targets, 0.0, np.random.default_rng(3))
    assert same is values
