"""Sets of classes: MAPIE's, with the coverage that they promise, and all classes where nothing can be promised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.special import expit
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from scanloop.calibration.conformal import Conformal, conformal_from, fit_conformal, no_conformal
from scanloop.errors import BundleError
from scanloop.grouping import one_a_group


class Told(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities: what MAPIE needs to take ours."""

    def fit(self, vectors: np.ndarray, labels: np.ndarray) -> "Told":
        self.classes_ = np.unique(labels)
        self.n_features_in_ = vectors.shape[1]
        return self

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.argmax(axis=1)


def simulated(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from others: the sets must hold even where the model is wrong of itself."""
    draw = np.random.default_rng(seed)
    truth = draw.dirichlet(np.full(classes, 0.5), size=n)
    labels = (truth.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)
    said = truth**1.7 + 0.02
    return said / said.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(("n", "alpha"), [(10, 0.1), (20, 0.05), (50, 0.1), (333, 0.2)])
def test_the_sets_are_those_of_mapie_where_these_are_not_empty(n: int, alpha: float, classes: int) -> None:
    said, labels = simulated(n + 400, classes, seed=n)
    labels[:classes] = np.arange(classes)
    told = Told().fit(said, np.arange(classes).repeat(2))
    mapie = SplitConformalClassifier(told, confidence_level=1 - alpha, conformity_score="lac", prefit=True)
    _, expected = mapie.conformalize(said[:n], labels[:n]).predict_set(said[n:])
    expected = expected[:, :, 0].astype(bool)
    found = fit_conformal(said[None, :n], labels[:n], alpha, per_class=False).sets(said[n:])
    empty = ~expected.any(axis=1)
    assert not empty.all()
    np.testing.assert_array_equal(found[~empty], expected[~empty])
    assert (found[empty].sum(axis=1) == 1).all()


def test_with_one_score_missing_for_alpha_every_set_holds_all_classes() -> None:
    said, labels = simulated(9, 2, seed=1)
    assert fit_conformal(said[None, :8], labels[:8], 0.1, per_class=False).thresholds == (0.0, 0.0)
    found = fit_conformal(said[None], labels, 0.1, per_class=False)
    assert found.thresholds == (said[np.arange(9), labels].min(),) * 2
    assert fit_conformal(said[None, :8], labels[:8], 0.1, per_class=False).sets(said).all()


def test_a_class_with_too_few_images_is_in_every_set_and_the_others_are_not() -> None:
    said, labels = simulated(300, 3, seed=2)
    rare = np.flatnonzero(labels == 2)[5:]
    kept = np.setdiff1d(np.arange(300), rare)
    found = fit_conformal(said[None, kept], labels[kept], 0.1, per_class=True)
    assert found.n[2] == 5
    assert found.thresholds[2] == 0.0
    sets = found.sets(said)
    assert sets[:, 2].all()
    assert not sets[:, :2].all()


@pytest.mark.parametrize("per_class", [False, True])
def test_coverage_over_many_draws_is_that_of_the_theorem(per_class: bool) -> None:
    """Split conformal covers at least 1 - alpha and at most 1 - alpha + 1/(n + 1), on average over calibration sets."""
    alpha, n, test, draws = 0.1, 60, 200, 400
    said, labels = simulated((n + test) * draws, 3, seed=3)
    covered = np.zeros((draws, 2))
    for row in range(draws):
        rows = np.arange(row * (n + test), (row + 1) * (n + test))
        found = fit_conformal(said[None, rows[:n]], labels[rows[:n]], alpha, per_class=per_class)
        plain = said[rows[n:]] >= np.array(found.thresholds)  # without the rule that no set is empty
        covered[row] = [sets[np.arange(test), labels[rows[n:]]].mean() for sets in (plain, found.sets(said[rows[n:]]))]
    mean, error = covered.mean(axis=0), covered.std(axis=0) / np.sqrt(draws)
    least = 3 if per_class else 1
    assert 1 - alpha - 3 * error[0] <= mean[0] <= 1 - alpha + least / (n / least + 1) + 3 * error[0]
    assert mean[1] >= mean[0]


def test_thresholds_per_class_keep_their_promise_where_the_classes_come_in_other_shares() -> None:
    said, labels = simulated(40_000, 2, seed=4)
    said = said * (3, 1) / (said * (3, 1)).sum(axis=1, keepdims=True)  # as a model says where class 1 is rare
    fitted, met = np.arange(20_000), np.arange(20_000, 40_000)
    met = np.concatenate([met[labels[met] == 1], met[labels[met] == 0][:1000]])
    shares = {}
    skewed = fitted[(labels[fitted] == 0) | (np.arange(20_000) % 5 == 0)]  # class 1 is rare where they are fitted
    for per_class in (False, True):
        sets = fit_conformal(said[None, skewed], labels[skewed], 0.1, per_class=per_class).sets(said[met])
        shares[per_class] = sets[np.arange(len(met)), labels[met]].mean()
    assert shares[False] < 0.87
    assert shares[True] > 0.89


def test_repeats_count_images_once() -> None:
    said, labels = simulated(30, 2, seed=5)
    once = fit_conformal(said[None], labels, 0.1, per_class=False)
    assert fit_conformal(np.stack([said] * 4), labels, 0.1, per_class=False) == once
    assert once.n == (30, 30)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.floats(0.02, 0.45), st.integers(0, 99))
def test_a_threshold_is_the_largest_that_the_definition_allows(n: int, alpha: float, seed: int) -> None:
    """Against counting: at least ceil((n + 1)(1 - alpha)) of the calibration images are in their own set."""
    said, labels = simulated(n, 2, seed)
    (threshold, _) = fit_conformal(said[None], labels, alpha, per_class=False).thresholds
    own = said[np.arange(n), labels]
    needed = (n + 1) * (1 - alpha) - 1e-9
    if threshold == 0:
        assert n < needed
    else:
        assert (own >= threshold).sum() >= needed > (own > threshold).sum()


def test_one_row_of_each_group_is_drawn_by_seed() -> None:
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    rows = one_a_group(groups, 0)
    assert sorted(groups[rows]) == ["a", "b", "c"]
    np.testing.assert_array_equal(rows, one_a_group(groups, 0))
    assert len({tuple(one_a_group(groups, seed)) for seed in range(30)}) == 6


def test_thresholds_survive_json_and_broken_ones_are_refused() -> None:
    said, labels = simulated(50, 2, seed=6)
    found = fit_conformal(said[None], labels, 0.1, per_class=True)
    assert conformal_from(found.as_json(), 2) == found
    for broken in ({"alpha": 1.5}, {"thresholds": [0.1]}, {"thresholds": [0.1, 1.5]}, {"n": None}, {"n": [1, -1]}):
        with pytest.raises(BundleError):
            conformal_from(found.as_json() | broken, 2)
    assert no_conformal(3).sets(np.array([[0.8, 0.1, 0.1]])).all()


def test_a_probability_that_rounding_moved_below_a_threshold_is_still_in_the_set() -> None:
    found = replace(no_conformal(2), thresholds=(0.3, 0.9))
    assert isinstance(found, Conformal)
    assert found.sets(np.array([[0.7, 0.3], [0.3 - 5e-7, 0.7]]))[:, 0].all()
    assert not found.sets(np.array([[0.29, 0.71]]))[0, 0]


@pytest.mark.parametrize("name", ["breastmnist_resaved", "pneumoniamnist_rebuilt"])
@pytest.mark.parametrize("per_class", [False, True])
def test_coverage_on_real_images_lies_within_binomial_error(name: str, per_class: bool, data_dir: Path) -> None:
    """Cross-validated scores of a plain head on pixels, and images of the same part that nobody learnt from."""
    arrays = np.load(data_dir / "medmnist" / f"{name}.npz")
    images, labels = arrays["train_images"], arrays["train_labels"].ravel().astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    fitted, held_out = order[:250], order[250:1250]
    vectors = images.reshape(len(images), 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1) / 255
    model = LogisticRegression(C=0.1, max_iter=500)
    own = cross_val_predict(model, vectors[fitted], labels[fitted], cv=10, method="predict_proba")
    found = fit_conformal(own[None], labels[fitted], 0.1, per_class=per_class)
    sets = found.sets(model.fit(vectors[fitted], labels[fitted]).predict_proba(vectors[held_out]))
    parts = [labels[held_out] == label for label in (0, 1)] if per_class else [np.ones(len(held_out), bool)]
    for part in parts:
        hits, count = int(sets[part, labels[held_out][part]].sum()), int(part.sum())
        n = found.n[0] if not per_class else found.n[int(labels[held_out][part][0])]
        rank = int(np.ceil((n + 1) * 0.9 - 1e-9))
        low, high = betabinom.ppf([0.001, 0.999], count, rank, n + 1 - rank)  # the threshold's own draw included
        assert low <= hits
        if len(parts) == 1 and not per_class:
            assert hits <= high + binom.ppf(0.999, count, 0.05)  # the most probable class is always in the set
    assert sets.sum(axis=1).mean() < 1.9  # the sets say something


def test_a_wrong_model_gets_large_sets_not_wrong_ones() -> None:
    draw = np.random.default_rng(7)
    score, labels = draw.normal(size=4000), draw.integers(0, 2, 4000)
    said = np.stack([expit(-score), expit(score)], axis=1)  # knows nothing of the labels, and is sure of itself
    sets = fit_conformal(said[None, :2000], labels[:2000], 0.1, per_class=True).sets(said[2000:])
    assert sets[np.arange(2000), labels[2000:]].mean() > 0.88
    assert sets.sum(axis=1).mean() > 1.7
