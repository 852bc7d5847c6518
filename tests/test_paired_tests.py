"""McNemar's and DeLong's tests against plain computations, permutations and simulated truth."""

import numpy as np
import pytest
from scipy.stats import binom, rankdata
from sklearn.metrics import roc_auc_score

from scanloop.evaluation.judged import Judged
from scanloop.evaluation.paired_tests import clustered_areas, delong, mcnemar


def both(n: int, seed: int, size: int = 1, gain: float = 0.0) -> Judged:
    """Two models that share what is hard; images of a group share more."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // size
    labels = rng.integers(0, 2, groups.max() + 1)[groups]
    shared = rng.normal(size=n) + rng.normal(size=groups.max() + 1)[groups] * (size > 1)
    logits = [1.2 * (2 * labels - 1) * (1 + extra) + shared + 0.7 * rng.normal(size=n) for extra in (gain, 0)]
    said = [np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], axis=1) for z in logits]
    return Judged(np.arange(n).astype(str), labels, groups, said[0], said[1])


def plain_delong(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong et al. 1988 as printed, pair by pair."""
    hits, misses = scores[:, positive], scores[:, ~positive]
    kernel = (hits[:, :, None] > misses[:, None, :]) + 0.5 * (hits[:, :, None] == misses[:, None, :])
    areas = kernel.mean(axis=(1, 2))
    return areas, np.cov(kernel.mean(axis=2)) / hits.shape[1] + np.cov(kernel.mean(axis=1)) / misses.shape[1]


@pytest.mark.parametrize("decimals", [1, 8])
def test_with_one_image_a_group_areas_and_covariance_are_delong_s_pair_by_pair(decimals: int) -> None:
    judged = both(150, 0)
    scores = np.round(np.stack([judged.probabilities[:, 1], judged.rival[:, 1]]), decimals)  # one decimal: many ties
    positive = judged.labels == 1
    areas, covariance = clustered_areas(scores, positive, judged.groups)
    plain_areas, plain = plain_delong(scores, positive)
    np.testing.assert_allclose(areas, plain_areas, rtol=1e-12)
    np.testing.assert_allclose(covariance, plain, rtol=1e-9)
    assert areas[0] == pytest.approx(roc_auc_score(positive, scores[0]))


def test_delong_agrees_with_a_permutation_of_the_two_models() -> None:
    judged = both(160, 6, gain=0.35)
    (found,) = delong(judged, ["a", "b"], 0.95)
    ranks = np.stack([rankdata(said[:, 1]) for said in (judged.probabilities, judged.rival)])  # on one scale
    swap = np.random.default_rng(0).random((2000, 160)) < 0.5
    first, second = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
    positive = judged.labels == 1
    sums = [rankdata(drawn, axis=1)[:, positive].sum(axis=1) for drawn in (first, second)]
    differences = (sums[0] - sums[1]) / (positive.sum() * (~positive).sum())  # of two Mann-Whitney statistics
    p_value = (np.abs(differences) >= abs(found.difference) - 1e-12).mean()
    assert 0.001 < found.p_value < 0.5
    assert found.p_value == pytest.approx(p_value, abs=0.03)


def test_clustered_variance_tells_what_the_difference_varies_by_and_the_plain_one_tells_too_little() -> None:
    areas, errors, plain = [], [], []
    for seed in range(250):
        judged = both(200, seed, size=5)
        scores, positive = np.stack([judged.probabilities[:, 1], judged.rival[:, 1]]), judged.labels == 1
        area, covariance = clustered_areas(scores, positive, judged.groups)
        areas.append(area[0])
        errors.append(covariance[0, 0])
        plain.append(clustered_areas(scores, positive, np.arange(200))[1][0, 0])
    truth = np.var(areas, ddof=1)
    assert np.mean(errors) == pytest.approx(truth, rel=0.25)
    assert np.mean(plain) < 0.8 * np.mean(errors)


def test_mcnemar_is_the_binomial_of_the_discordant_images_one_a_group() -> None:
    judged = both(300, 3, size=3, gain=0.4)
    found = mcnemar(judged, seed=1)
    one = judged.one_a_group(1)
    assert len(one.labels) == found.n == 100 == len(np.unique(one.groups))
    right = one.probabilities.argmax(axis=1) == one.labels
    theirs = one.rival.argmax(axis=1) == one.labels
    gained, lost = (right & ~theirs).sum(), (theirs & ~right).sum()
    assert (found.only_challenger, found.only_champion) == (gained, lost)
    tail = binom.cdf(min(gained, lost), gained + lost, 0.5)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


def test_equal_models_differ_by_nothing_and_perfect_ones_have_no_error() -> None:
    judged = both(60, 1)
    same = Judged(judged.slice_ids, judged.labels, judged.groups, judged.probabilities, judged.probabilities)
    (found,) = delong(same, ["a", "b"], 0.95)
    assert (found.difference, found.p_value, mcnemar(same, 0).p_value) == (0, 1, 1)
    sure = np.eye(2)[judged.labels]
    (found,) = delong(Judged(judged.slice_ids, judged.labels, judged.groups, sure, 1 - sure), ["a", "b"], 0.95)
    assert (found.difference, found.p_value) == (1, None)


def test_each_of_three_classes_is_held_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(3), size=(2, 90))
    judged = Judged(np.arange(90).astype(str), np.arange(90) % 3, np.arange(90), said[0], said[1])
    found = delong(judged, ["a", "b", "c"], 0.95)
    assert [row.positive for row in found] == ["a", "b", "c"]
    for label, row in enumerate(found):
        assert row.challenger == pytest.approx(roc_auc_score(judged.labels == label, said[0][:, label]))
