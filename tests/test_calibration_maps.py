"""Maps from logits to honest probabilities, held against simulated truth and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression

from scanloop.calibration.maps import MAPS, affine, beta, isotonic
from scanloop.calibration.prior import estimate_prior, prior_shift


def drawn(probabilities: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels drawn from probabilities (n, classes)."""
    return (probabilities.cumsum(axis=1) < np.random.default_rng(seed).random(len(probabilities))[:, None]).sum(axis=1)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MAPS)
def test_every_map_mends_logits_that_are_three_times_too_large(name: str, classes: int) -> None:
    honest = softmax(np.random.default_rng(1).normal(size=(6000, classes)) * 1.5, axis=1)
    logits, labels = np.log(honest) * 3, drawn(honest)
    found = MAPS[name](logits[:4000], labels[:4000])(logits[4000:])
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - honest[4000:]).mean() < 0.03
    assert log_loss(found, labels[4000:]) < log_loss(softmax(logits[4000:], axis=1), labels[4000:])


def test_an_affine_map_finds_slope_and_bias() -> None:
    scores = np.random.default_rng(2).normal(size=20_000) * 2
    truth = expit(0.4 * scores + 0.9)
    labels = drawn(np.stack([1 - truth, truth], axis=1))
    logits = np.stack([-scores / 2, scores / 2], axis=1)
    assert np.abs(affine(logits, labels)(logits)[:, 1] - truth).max() < 0.02


def test_an_affine_map_of_two_classes_is_an_unpenalised_logistic_regression() -> None:
    scores = np.random.default_rng(3).normal(size=400)
    labels = drawn(np.stack([1 - expit(scores), expit(scores)], axis=1))
    logits = np.stack([-scores, scores], axis=1)
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], labels).predict_proba(scores[:, None])
    np.testing.assert_allclose(affine(logits, labels)(logits), expected, atol=1e-4)


def test_a_beta_map_finds_a_shape_that_no_sigmoid_has() -> None:
    shares = np.random.default_rng(4).uniform(0.01, 0.99, 20_000)
    truth = expit(0.5 * np.log(shares) - 2.0 * np.log1p(-shares) - 0.3)
    labels = drawn(np.stack([1 - truth, truth], axis=1))
    logits = np.stack([np.zeros_like(shares), logit(shares)], axis=1)
    errors = {one.__name__: np.abs(one(logits, labels)(logits)[:, 1] - truth).mean() for one in (beta, affine)}
    assert errors["beta"] < 0.01 < errors["affine"]


def test_an_isotonic_map_follows_a_step_and_never_turns_a_ranking_round() -> None:
    shares = np.random.default_rng(5).uniform(size=20_000)
    truth = np.where(shares < 0.6, 0.2, 0.7)
    labels = drawn(np.stack([1 - truth, truth], axis=1))
    logits = np.stack([np.zeros_like(shares), logit(shares)], axis=1)
    found = isotonic(logits, labels)(logits)[:, 1]
    assert np.abs(found - truth).mean() < 0.02
    assert (np.diff(found[np.argsort(shares)]) >= 0).all()


@pytest.mark.parametrize("name", MAPS)
def test_perfectly_separated_logits_give_finite_probabilities(name: str) -> None:
    labels = np.arange(30) % 2
    logits = np.eye(2)[labels] * 8.0
    found = MAPS[name](logits, labels)(logits)
    assert np.isfinite(np.log(found)[np.arange(30), labels]).all()
    assert (found.argmax(axis=1) == labels).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=4), st.integers(0, 99))
def test_a_shifted_prior_is_bayes_rule(weights: list[float], seed: int) -> None:
    """Against the likelihood times the new prior, where the likelihood is known."""
    draw = np.random.default_rng(seed)
    likelihood = draw.uniform(0.05, 1, (50, len(weights)))
    trained, met = draw.dirichlet(np.ones(len(weights))) + 0.01, np.array(weights)
    trained, met = trained / trained.sum(), met / met.sum()
    posterior, expected = (likelihood * prior for prior in (trained, met))
    posterior, expected = (one / one.sum(axis=1, keepdims=True) for one in (posterior, expected))
    np.testing.assert_allclose(prior_shift(posterior, trained, met), expected, rtol=1e-3, atol=1e-6)


def test_the_prior_of_a_pool_is_found_without_its_labels() -> None:
    """Half of the labelled part is positive, three quarters of the pool, as in the brain set."""
    draw = np.random.default_rng(6)
    labels = (draw.random(20_000) < 0.75).astype(int)
    scores = draw.normal(size=20_000) + 2.0 * (labels - 0.5)
    posterior = expit(2.0 * scores)  # for classes of the same share, of variance 1 and 2 apart
    found = estimate_prior(np.stack([1 - posterior, posterior], axis=1), np.array([0.5, 0.5]))
    assert found[1] == pytest.approx(0.75, abs=0.015)
