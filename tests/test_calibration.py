"""Temperature scaling: one number that makes confidence honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from scanloop.calibration.scaling import LOG_TEMPERATURE_BOUNDS, fit_temperature, probabilities_of


def simulated(temperature: float, n: int = 20_000, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and labels drawn from the honest probabilities."""
    draw = np.random.default_rng(0)
    honest = draw.normal(size=(n, classes)) * 2
    labels = (softmax(honest, axis=1).cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)
    return honest * temperature, labels


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.2, 1.0, 1.7, 6.0])
def test_the_temperature_of_simulated_logits_is_recovered(temperature: float) -> None:
    assert fit_temperature(*simulated(temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_temperature_of_a_fine_grid_is_better() -> None:
    logits, labels = simulated(2.5, n=200)
    best = log_loss(logits, labels, fit_temperature(logits, labels))
    assert best <= min(log_loss(logits, labels, t) for t in np.exp(np.linspace(*LOG_TEMPERATURE_BOUNDS, 2000))) + 1e-9


def test_scaling_the_logits_scales_the_temperature() -> None:
    logits, labels = simulated(1.0, n=500)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=1e-3)


@pytest.mark.parametrize("right", [True, False])
def test_logits_that_are_always_right_or_always_wrong_end_at_a_bound(right: bool) -> None:
    labels = np.arange(20) % 2
    logits = np.eye(2)[labels if right else 1 - labels] * 0.05
    temperature = fit_temperature(logits, labels)
    assert np.log(temperature) == pytest.approx(LOG_TEMPERATURE_BOUNDS[0 if right else 1], abs=0.01)
    assert np.isfinite(probabilities_of(logits, temperature)).all()


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(2, 5), st.floats(0.02, 50), st.integers(0, 99))
def test_probabilities_are_the_softmax_and_keep_the_ranking(n: int, classes: int, t: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(n, classes)) * 30
    probabilities = probabilities_of(logits, t)
    np.testing.assert_allclose(probabilities, softmax(logits / t, axis=1), atol=1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert (probabilities.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_huge_logits_do_not_overflow() -> None:
    np.testing.assert_array_equal(probabilities_of(np.array([[1e300, -1e300], [-1e4, 1e4]])), [[1, 0], [0, 1]])
