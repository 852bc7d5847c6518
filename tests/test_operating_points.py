"""Thresholds from images that do not judge; shares with exact bounds that know of groups."""

import numpy as np
import pytest
from scipy.stats import binomtest

from scanloop.evaluation.operating_points import (
    Scored,
    clustered_proportion,
    operating_points,
    predictive_values,
    threshold_for,
)
from scanloop.sections.promotion import OperatingPointsConfig
from scanloop.types import Interval


def drawn(n: int, seed: int, size: int = 1) -> Scored:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * positive)))
    return Scored(scores, positive, np.arange(n) // size)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.95, 1.0])
def test_the_threshold_is_the_best_of_all_thresholds_tried_one_by_one(rate: float) -> None:
    side = drawn(150, 3)
    side = Scored(np.round(side.scores, 2), side.positive, side.groups)  # ties
    tried = np.arange(-0.005, 1.02, 0.01)
    tpr = np.array([(side.scores[side.positive] >= t).mean() for t in tried])
    fpr = np.array([(side.scores[~side.positive] >= t).mean() for t in tried])
    by_tpr = threshold_for("tpr", rate, side.scores, side.positive)
    assert (side.scores[side.positive] >= by_tpr).mean() == tpr[tpr >= rate][-1]
    assert (side.scores[~side.positive] >= by_tpr).mean() == pytest.approx(fpr[tpr >= rate].min())
    by_fpr = threshold_for("fpr", 1 - rate, side.scores, side.positive)
    assert (side.scores[side.positive] >= by_fpr).mean() == pytest.approx(tpr[fpr <= 1 - rate + 1e-12].max())


def test_a_point_reports_the_rates_of_the_judges_and_not_of_those_that_chose() -> None:
    chosen, judged = drawn(400, 0), drawn(300, 1)
    config = OperatingPointsConfig(target_tpr=(0.9,), target_fpr=(), prevalence=0.02)
    (point,) = operating_points(chosen, judged, "validation", config)
    called = judged.scores >= point.threshold
    expected = binomtest(int(called[judged.positive].sum()), int(judged.positive.sum())).proportion_ci(0.95, "exact")
    assert (point.tpr.low, point.tpr.high) == pytest.approx((expected.low, expected.high))
    assert point.tpr.value == called[judged.positive].mean()
    assert point.fpr.value == called[~judged.positive].mean()
    assert (point.ppv.value, point.ppv.n) == (judged.positive[called].mean(), called.sum())
    assert (point.npv.value, point.npv.n) == ((~judged.positive[~called]).mean(), (~called).sum())
    assert (chosen.scores[chosen.positive] >= point.threshold).mean() >= 0.9
    assert point.elsewhere is not None
    assert point.elsewhere["ppv"].value < point.ppv.value  # the class is rarer there
    assert point.elsewhere["npv"].value > point.npv.value


def test_at_the_prevalence_of_the_sample_bayes_rule_gives_the_counted_values() -> None:
    judged = drawn(500, 2)
    config = OperatingPointsConfig(prevalence=float(judged.positive.mean()))
    for point in operating_points(drawn(500, 5), judged, "validation", config):
        ppv, npv = predictive_values(point.tpr, point.fpr, point.prevalence)
        assert (ppv.value, npv.value) == pytest.approx((point.ppv.value, point.npv.value))
        assert ppv.low <= point.ppv.value <= ppv.high


def test_where_the_judges_choose_each_fold_is_judged_at_a_threshold_of_the_others() -> None:
    """One fold's scores are shifted: its own threshold would fit it, that of the others does not."""
    side = drawn(200, 4)
    folds = np.arange(200) % 2
    shifted = Scored(np.where(folds == 0, side.scores / 2, side.scores), side.positive, side.groups, folds)
    config = OperatingPointsConfig(target_tpr=(0.9,), target_fpr=())
    (point,) = operating_points(shifted, shifted, "out_of_fold", config)
    called = np.zeros(200, bool)
    for fold in (0, 1):
        other, here = folds != fold, folds == fold
        threshold = threshold_for("tpr", 0.9, shifted.scores[other], shifted.positive[other])
        called[here] = shifted.scores[here] >= threshold
    assert point.tpr.value == called[side.positive].mean()
    assert point.tpr.value < 0.85


def test_images_that_repeat_their_group_count_as_groups() -> None:
    right = np.repeat(np.arange(40) < 30, 5)
    clustered = clustered_proportion(right, np.arange(200) // 5, 0.95)
    single = clustered_proportion(np.arange(40) < 30, np.arange(40), 0.95)
    assert clustered.value == single.value == 0.75
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high), abs=0.01)
    perfect = clustered_proportion(np.ones(200, bool), np.arange(200) // 5, 0.95)
    assert perfect.low == pytest.approx(0.025 ** (1 / 40))


def test_the_clustered_interval_covers_the_truth() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        own = rng.beta(9, 1, size=60)  # a group's own rate, 0.9 on average
        right = rng.random((60, 4)) < own[:, None]
        interval = clustered_proportion(right.ravel(), np.repeat(np.arange(60), 4), 0.95)
        hits += interval.low <= 0.9 <= interval.high
    assert hits >= 370  # 0.925; below 0.95 less two standard errors


def test_one_kind_of_images_alone_has_no_operating_point() -> None:
    healthy = Scored(np.linspace(0, 1, 20), np.zeros(20, bool), np.arange(20))
    assert operating_points(drawn(50, 0), healthy, "validation", OperatingPointsConfig()) == []


def test_a_target_that_needs_no_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="need no threshold"):
        OperatingPointsConfig(target_tpr=(0.0,))


def test_no_image_called_positive_leaves_the_ppv_undefined() -> None:
    none = clustered_proportion(np.zeros(0, bool), np.zeros(0), 0.95)
    assert (none.method, none.low, none.high) == ("undefined", 0, 1)
    ppv, _ = predictive_values(Interval(0, 0, 0.1, 9, 9), Interval(0, 0, 0.1, 9, 9), 0.1)
    assert ppv.low == 0
