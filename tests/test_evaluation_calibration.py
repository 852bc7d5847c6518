"""Measures of honesty against plain loops, scikit-learn and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as reference_log_loss

from scanloop.evaluation.calibration import brier_parts, classwise_error, equal_mass_error, log_loss, noise_floor
from scanloop.evaluation.metrics import brier, expected_calibration_error


def forecast(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that are drawn from them."""
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(classes, 0.6), n)
    return probabilities, (probabilities.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1).clip(0, classes - 1)


def test_log_loss_is_scikit_learns() -> None:
    probabilities, labels = forecast(300, 3)
    expected = reference_log_loss(labels, probabilities, labels=[0, 1, 2])
    assert log_loss(probabilities, labels) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(10, 200), st.integers(2, 4), st.integers(1, 12), st.integers(0, 99))
def test_briers_parts_add_up_to_the_score(n: int, classes: int, bins: int, seed: int) -> None:
    probabilities, labels = forecast(n, classes, seed)
    parts = brier_parts(probabilities, labels, bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert total == pytest.approx(brier(probabilities, labels)[0], abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


def test_with_a_bin_for_each_said_value_nothing_is_within_and_the_score_is_scikit_learns() -> None:
    said = np.repeat([0.1, 0.4, 0.8], 50)
    labels = (np.random.default_rng(1).random(150) < said).astype(int)
    parts = brier_parts(np.stack([1 - said, said], axis=1), labels, bins=3)
    assert parts.within == pytest.approx(0, abs=1e-12)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert total == pytest.approx(2 * brier_score_loss(labels, said))


def test_bins_of_equal_mass_are_those_of_a_plain_loop() -> None:
    probabilities, labels = forecast(230, 3, seed=2)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence)
    cut = [order[(np.arange(230) * 10 // 230) == number] for number in range(10)]
    expected = sum(len(rows) / 230 * abs(confidence[rows].mean() - right[rows].mean()) for rows in cut)
    assert equal_mass_error(probabilities, labels) == pytest.approx(expected)


def test_images_of_one_confidence_stay_in_one_bin_whatever_their_order() -> None:
    probabilities = np.tile([0.7, 0.3], (90, 1))
    labels = np.repeat([0, 1], [63, 27])
    assert equal_mass_error(probabilities, labels) == pytest.approx(0, abs=1e-12)
    assert equal_mass_error(probabilities, labels[::-1]) == pytest.approx(0, abs=1e-12)


def test_a_class_that_is_said_too_often_shows_in_the_classwise_error_alone() -> None:
    """Twice the truth for class 2 at the cost of class 1, where class 0 always wins: its confidence is right."""
    n = 20_000
    labels = np.random.default_rng(3).choice(3, n, p=[0.6, 0.3, 0.1])
    said = np.tile([0.6, 0.2, 0.2], (n, 1))
    assert equal_mass_error(said, labels) < 0.01
    assert classwise_error(said, labels) == pytest.approx((0 + 0.1 + 0.1) / 3, abs=0.01)


@pytest.mark.parametrize("n", [100, 2000])
def test_the_noise_floor_is_the_error_of_perfect_models(n: int) -> None:
    probabilities, _ = forecast(n, 2, seed=4)
    floor = noise_floor(probabilities, draws=600)
    seen = [expected_calibration_error(probabilities, one)[0] for one in redrawn(probabilities, 600)]
    assert np.mean(floor) == pytest.approx(np.mean(seen), rel=0.08)
    assert 0 < np.mean(floor) < 1.2 / np.sqrt(n)


def redrawn(probabilities: np.ndarray, times: int) -> list[np.ndarray]:
    draw = np.random.default_rng(5)
    return [(draw.random(len(probabilities)) < probabilities[:, 1]).astype(int) for _ in range(times)]
