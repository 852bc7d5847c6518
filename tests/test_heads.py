"""The linear head: scikit-learn's probabilities from plain weights, tuned by groups that it never saw."""

from dataclasses import replace

import numpy as np
import pytest
from learning_data import new_known, new_pool
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scanloop.calibration.scaling import probabilities_of
from scanloop.config import PseudoLabelConfig
from scanloop.errors import TooFewLabelsError
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known
from scanloop.learning.heads import REGULARISATION, fit_head, tune_head
from scanloop.learning.neighbours import anomaly, neighbour_vote
from scanloop.learning.pseudo_labels import propose
from scanloop.learning.semisupervised.method import fit_on_targets
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.learning.semisupervised.policy import METHODS


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_heads_probabilities_are_those_of_scikit_learn_on_standardised_features(classes: int, weighted: bool) -> None:
    known, pool = new_known(classes=classes), new_pool()
    vectors = known.vectors.astype(np.float64) * np.array([1, 10, 0.1, 1, 1, 3]) + 7
    weights = np.linspace(0.2, 1, len(vectors)) if weighted else None
    head = fit_head(vectors, known.labels, classes, 0.1, weights)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    pipeline.fit(vectors, known.labels, logisticregression__sample_weight=weights)
    queries = pool.vectors.astype(np.float64)
    np.testing.assert_allclose(probabilities_of(head.logits(queries)), pipeline.predict_proba(queries), atol=1e-9)


def test_a_feature_that_never_varies_changes_nothing() -> None:
    known = new_known()
    wider = np.concatenate([known.vectors, np.full((60, 1), 3, np.float16)], axis=1)
    head, same = (fit_head(vectors, known.labels, 2, 0.1) for vectors in (wider, known.vectors))
    np.testing.assert_allclose(head.logits(wider), same.logits(known.vectors), atol=1e-9)
    assert np.isfinite(head.weights).all()


def test_permuting_rows_permutes_logits_and_permuted_training_rows_give_the_same_head() -> None:
    known = new_known(n=40)
    head = fit_head(known.vectors, known.labels, 2, 0.1)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(head.logits(known.vectors[order]), head.logits(known.vectors)[order], atol=1e-12)
    other = fit_head(known.vectors[order], known.labels[order], 2, 0.1)
    np.testing.assert_allclose(other.weights, head.weights, atol=1e-3)


def test_out_of_fold_logits_come_from_heads_that_never_saw_the_group() -> None:
    known = new_known(n=30, bought=6)
    tuned = tune_head(known, 2, 3, seed=5)
    for cut in group_folds(known.labels, known.groups, 3, 1, 5):
        seen = ~np.isin(known.groups, known.groups[cut.test])
        expected = fit_head(known.vectors[seen], known.labels[seen], 2, tuned.c).logits(known.vectors[cut.test])
        np.testing.assert_allclose(tuned.out_of_fold[cut.test], expected, atol=1e-9)


def test_a_head_that_could_know_each_group_by_heart_knows_nothing_out_of_fold() -> None:
    known = new_known(n=40)
    identity = (known.groups[:, None] == np.unique(known.groups)).astype(np.float16)
    tuned = tune_head(replace(known, vectors=identity), 2, 4, seed=0)
    assert (tuned.head.logits(identity).argmax(axis=1) == known.labels).all()
    for cut in group_folds(known.labels, known.groups, 4, 1, 0):
        assert np.ptp(tuned.out_of_fold[cut.test], axis=0).max() < 1e-9  # a group unseen is like any other


def honest_temperature(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Temperature and log-loss, by another route: the inverse temperature, plainly bounded."""

    def loss(inverse: float) -> float:
        return -log_softmax(logits * inverse, axis=1)[np.arange(len(labels)), labels].mean()

    result = minimize_scalar(loss, bounds=(0.018, 55), method="bounded", options={"xatol": 1e-8})
    return 1 / result.x, result.fun


def with_wrong_answers(seed: int = 0) -> tuple:
    """Thirty of ninety rows were bought, and half of their labels are wrong."""
    known = new_known(n=90, bought=30, seed=seed)
    labels = known.labels.copy()
    labels[60::2] = 1 - labels[60::2]
    return replace(known, labels=labels)


def test_the_temperature_comes_from_the_drawn_rows_alone() -> None:
    known = with_wrong_answers()
    tuned = tune_head(known, 2, 5, seed=0)
    drawn = known.drawn
    expected, _ = honest_temperature(tuned.out_of_fold[drawn], known.labels[drawn])
    with_bought, _ = honest_temperature(tuned.out_of_fold, known.labels)
    assert tuned.temperature == pytest.approx(expected, rel=1e-3)
    assert abs(with_bought / expected - 1) > 0.05  # the comparison means something


def test_the_penalty_is_the_one_with_the_smallest_out_of_fold_loss_on_the_drawn_rows() -> None:
    known = with_wrong_answers(seed=3)
    tuned, drawn = tune_head(known, 2, 5, seed=0), known.drawn
    losses = {}
    for c in REGULARISATION:
        logits = np.empty((90, 2))
        for cut in group_folds(known.labels, known.groups, 5, 1, 0):
            logits[cut.test] = fit_head(known.vectors[cut.train], known.labels[cut.train], 2, c).logits(
                known.vectors[cut.test]
            )
        losses[c] = honest_temperature(logits[drawn], known.labels[drawn])[1]
    assert tuned.c == min(losses, key=lambda c: losses[c])


def test_tuned_probabilities_are_tempered_and_the_same_twice() -> None:
    known, pool = new_known(), new_pool()
    tuned, again = tune_head(known, 2, 5, seed=0), tune_head(known, 2, 5, seed=0)
    expected = softmax(tuned.head.logits(pool.vectors) / tuned.temperature, axis=1)
    np.testing.assert_allclose(tuned.probabilities(pool.vectors), expected, atol=1e-12)
    np.testing.assert_array_equal(tuned.head.weights, again.head.weights)
    assert tuned.temperature == again.temperature


def test_one_group_of_a_class_is_too_few() -> None:
    known = new_known(n=20)
    with pytest.raises(TooFewLabelsError, match="label more"):
        tune_head(replace(known, labels=(known.groups == "g0003").astype(np.int64)), 2, 5, seed=0)


def test_neighbours_vote_as_a_plain_count_of_angles_says() -> None:
    known, pool = new_known(n=31, classes=3), new_pool(n=40)
    labels, shares = neighbour_vote(known.vectors, known.labels, pool.vectors, 7, 3)
    base, queries = known.vectors.astype(np.float64), pool.vectors.astype(np.float64)
    far = anomaly(known.vectors, pool.vectors)
    for query, label, share, distance in zip(queries, labels, shares, far, strict=True):
        cosines = base @ query / np.linalg.norm(base, axis=1) / np.linalg.norm(query)
        votes = np.bincount(known.labels[np.argsort(-cosines)[:7]], minlength=3)
        assert (label, share) == (votes.argmax(), votes.max() / 7)
        assert distance == pytest.approx(1 - cosines.max(), abs=1e-9)


def test_fewer_labelled_images_than_neighbours_all_vote_and_a_tie_goes_to_the_lower_class() -> None:
    base = np.array([[1.0, 0], [0, 1], [1, 1], [-1, 1]])
    labels, shares = neighbour_vote(base, np.array([1, 0, 1, 0]), np.array([[1.0, 0.5]]), 11, 2)
    assert (labels.tolist(), shares.tolist()) == ([0], [0.5])
    assert anomaly(base, np.empty((0, 2))).shape == (0,)


def two_encoders(tells: bool, seed: int = 3) -> Known:
    """Rows whose first four columns hint at the class; the others tell it, or are noise."""
    hints = new_known(n=160, d=4, gap=0.4, seed=seed)
    noise = np.random.default_rng(9).normal(size=(160, 40))
    more = noise[:, :4] + 3 * hints.labels[:, None] if tells else noise
    return replace(hints, vectors=np.concatenate([hints.vectors, more], axis=1).astype(np.float16), first=4)


def test_a_second_encoder_that_tells_the_class_is_looked_at() -> None:
    known = two_encoders(tells=True)
    tuned = tune_head(known, 2, 5, seed=0)
    plain = tune_head(replace(known, first=None), 2, 5, seed=0)
    assert tuned.width is None
    assert tuned.c == plain.c
    np.testing.assert_array_equal(tuned.head.weights, plain.head.weights)


def test_a_second_encoder_of_noise_is_left_alone_by_the_head_and_by_all_that_follows_it() -> None:
    known = two_encoders(tells=False)
    alone = replace(known, vectors=known.vectors[:, :4], first=None)
    tuned, plain = tune_head(known, 2, 5, seed=0), tune_head(alone, 2, 5, seed=0)
    assert tuned.width == 4
    np.testing.assert_array_equal(tuned.head.weights, np.pad(plain.head.weights, ((0, 40), (0, 0))))
    found, expected = tuned.probabilities(known.vectors), plain.probabilities(alone.vectors)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    pool = new_pool(n=60, d=44, seed=5)
    narrow = replace(pool, vectors=pool.vectors[:, :4])
    for method in METHODS.values():
        wide_targets, plain_targets = method(Opinions(tuned, known, pool)), method(Opinions(plain, alone, narrow))
        np.testing.assert_allclose(wide_targets.probabilities, plain_targets.probabilities, atol=1e-9)
        wide = fit_on_targets(tuned, known, pool, wide_targets)
        own = fit_on_targets(plain, alone, narrow, plain_targets)
        np.testing.assert_allclose(wide.logits(pool.vectors), own.logits(narrow.vectors), atol=1e-6)
    config = PseudoLabelConfig()
    refusals = [propose(tuned, known, pool, 2, config).refusals, propose(plain, alone, narrow, 2, config).refusals]
    np.testing.assert_array_equal(*refusals)


def test_a_second_encoder_has_to_be_better_by_the_lower_bound() -> None:
    for seed in range(6):
        known = two_encoders(tells=False, seed=seed)
        shift = known.labels[:, None] * np.linspace(0, 1.2, 6)[seed]
        vectors = np.hstack([known.vectors[:, :4], known.vectors[:, 4:8] + shift])
        known = replace(known, vectors=vectors.astype(np.float16))
        losses = []
        for width in (4, 8):
            head = tune_head(replace(known, vectors=known.vectors[:, :width], first=None), 2, 5, seed=0)
            said = probabilities_of(head.out_of_fold, head.temperature)
            losses.append(-np.log(said[np.arange(160), known.labels]))
        by_group = (losses[0] - losses[1]).reshape(80, 2).mean(axis=1)  # two rows a group
        better = by_group.mean() > stats.norm.ppf(0.95) * by_group.std(ddof=1) / np.sqrt(80)
        assert (tune_head(known, 2, 5, seed=0).width is None) == better
