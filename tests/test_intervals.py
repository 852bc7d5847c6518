"""Intervals: their coverage, their agreement with scipy, and what they say where nothing varies."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from scanloop.artifacts import read_json, write_json
from scanloop.evaluation import intervals
from scanloop.evaluation.comparison import (
    Holdout,
    class_intervals,
    difference_interval,
    difference_intervals,
    metric_interval,
    metric_intervals,
)
from scanloop.evaluation.intervals import Resampling, bootstrap_interval, exact_interval
from scanloop.evaluation.metrics import RANGES, measure
from scanloop.types import Float, Groups, Labels

PLAN = Resampling(resamples=400, seed=3)


def mean_of(values: Float) -> Callable[[Float], Float]:
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def draw_scores(rng: np.random.Generator, groups: int, noise: float = 1.0) -> tuple[Float, Labels, Groups]:
    """Calibrated two-class probabilities of images that share much with the others of their group."""
    sizes = rng.integers(1, 4, groups)
    group = np.repeat(np.arange(groups), sizes)
    labels = rng.integers(2, size=groups)[group]
    score = 2 * (labels - 0.5) + np.sqrt(0.5) * (rng.normal(size=groups)[group] + rng.normal(size=len(group))) * noise
    positive = 1 / (1 + np.exp(-2 * score))
    return np.stack([1 - positive, positive], axis=1), labels, group


def perfect(n: int, confidence: float = 0.99) -> tuple[Float, Holdout]:
    labels = np.arange(n) % 2
    probabilities = np.where(np.eye(2)[labels] == 1, confidence, 1 - confidence)
    return probabilities, Holdout(labels, np.arange(n))


def test_ninety_five_of_a_hundred_intervals_hold_the_truth_when_groups_share_their_fate() -> None:
    rng = np.random.default_rng(0)
    truth = 1.4 / 2  # mean of the beta distribution below
    group = np.repeat(np.arange(60), 4)
    held = {"group": 0, "image": 0}
    for _ in range(300):
        right = (rng.random(240) < rng.beta(1.4, 0.6, 60)[group]).astype(float)
        for unit, groups in (("group", group), ("image", np.arange(240))):
            interval = bootstrap_interval(mean_of(right), groups, PLAN)
            held[unit] += interval.low <= truth <= interval.high
    assert 0.92 <= held["group"] / 300 <= 0.98
    assert held["image"] / 300 < 0.88  # images as if independent promise too much


def test_metrics_of_a_classifier_lie_in_their_intervals_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    truth = measure(*draw_scores(np.random.default_rng(2), 100_000)[:2])
    held = dict.fromkeys(RANGES, 0)
    for _ in range(100):
        probabilities, labels, group = draw_scores(rng, 100)
        found = metric_intervals(probabilities, Holdout(labels, group), Resampling(200))
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
            assert interval.low <= interval.value <= interval.high
    assert all(count >= 88 for count in held.values()), held


def test_groups_of_one_agree_with_scipys_bca_bootstrap() -> None:
    values = np.random.default_rng(4).exponential(size=80)
    ours = bootstrap_interval(mean_of(values), np.arange(80), Resampling(20_000, 0.9, seed=1))
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    assert (ours.value, ours.n, ours.groups) == (pytest.approx(values.mean()), 80, 80)


def test_clopper_pearson_equals_scipys() -> None:
    for successes, trials in ((0, 7), (3, 7), (7, 7), (95, 99)):
        theirs = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
        ours = exact_interval(successes, trials)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_five_right_predictions_prove_little() -> None:
    probabilities, holdout = perfect(5)
    found = metric_intervals(probabilities, holdout, PLAN)
    for name in ("accuracy", "macro_f1", "auroc"):
        assert found[name].value == 1
        assert found[name].low < 0.55
        assert (found[name].high, found[name].method) == (1, "exact")
    assert found["accuracy"].low == pytest.approx(exact_interval(5, 5).low)
    assert found["ece"].high > 0.4
    assert found["brier"].high > 0.8


def test_a_hundred_right_predictions_have_the_exact_bound_of_a_proportion() -> None:
    probabilities, holdout = perfect(100)
    repeats = np.stack([probabilities, probabilities])
    for name in ("accuracy", "macro_f1", "auroc"):
        assert metric_interval(name, repeats, holdout, PLAN).low == pytest.approx(0.025 ** (1 / 100))


def test_predictions_that_are_all_wrong_leave_room_above() -> None:
    probabilities, holdout = perfect(10)
    found = metric_intervals(probabilities[:, ::-1], holdout, PLAN)
    for name in ("accuracy", "macro_f1", "auroc"):
        assert found[name].value == 0
        assert (found[name].low, found[name].method) == (0, "exact")
        assert found[name].high == pytest.approx(exact_interval(0, 10).high, abs=1e-9)


def test_a_thousand_healthy_groups_do_not_vouch_for_three_of_cancer() -> None:
    labels = np.r_[np.zeros(1000, dtype=int), np.ones(3, dtype=int)]
    probabilities = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    holdout = Holdout(labels, np.arange(1003))
    assert metric_interval("accuracy", probabilities, holdout, PLAN).low > 0.99
    assert metric_interval("macro_f1", probabilities, holdout, PLAN).low < 0.6
    assert metric_interval("auroc", probabilities, holdout, PLAN).low < 0.6
    assert class_intervals(probabilities, holdout, PLAN)[1]["recall"].low < 0.35


def test_accuracy_of_one_image_a_group_is_exact() -> None:
    probabilities, holdout = perfect(40)
    probabilities[:4] = probabilities[:4, ::-1]
    found = metric_interval("accuracy", probabilities, holdout, PLAN)
    expected = exact_interval(36, 40)
    assert (found.low, found.high, found.method) == (expected.low, expected.high, "exact")


def test_copies_of_an_image_in_its_group_do_not_narrow_an_interval() -> None:
    probabilities, labels, _ = draw_scores(np.random.default_rng(5), 80)
    once = Holdout(labels, np.arange(len(labels)))
    thrice = Holdout(np.repeat(labels, 3), np.repeat(np.arange(len(labels)), 3))
    for name in ("macro_f1", "auroc", "brier"):
        one = metric_interval(name, probabilities, once, PLAN)
        three = metric_interval(name, np.repeat(probabilities, 3, axis=0), thrice, PLAN)
        assert (three.low, three.high) == pytest.approx((one.low, one.high))
        assert (three.n, three.groups) == (3 * one.n, one.groups)


def test_the_same_model_differs_from_itself_by_nothing() -> None:
    probabilities, labels, group = draw_scores(np.random.default_rng(6), 50)
    for interval in difference_intervals(probabilities, probabilities.copy(), Holdout(labels, group), PLAN).values():
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_two_models_without_an_error_are_not_shown_to_be_equal() -> None:
    probabilities, holdout = perfect(50)
    other, _ = perfect(50, confidence=0.95)
    found = difference_interval("macro_f1", probabilities, other, holdout, PLAN)
    assert (found.value, found.method) == (0, "exact")
    assert found.low < -0.05 < 0.05 < found.high


def test_a_paired_difference_is_narrower_than_two_intervals_apart() -> None:
    rng = np.random.default_rng(7)
    probabilities, labels, group = draw_scores(rng, 120)
    logits = np.log(probabilities[:, 1] / probabilities[:, 0]) + 0.5 * rng.normal(size=len(labels))
    other = np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], axis=1)
    holdout = Holdout(labels, group)
    paired = difference_interval("auroc", probabilities, other, holdout, PLAN)
    apart = metric_interval("auroc", probabilities, holdout, PLAN)
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)
    assert paired.low <= paired.value <= paired.high


def test_repeats_are_averaged_and_draw_the_same_groups() -> None:
    one, labels, group = draw_scores(np.random.default_rng(8), 60)
    other = np.stack([one[:, 0] ** 2, one[:, 1] ** 2], axis=1)
    other /= other.sum(axis=1, keepdims=True)
    holdout, repeats = Holdout(labels, group), np.stack([one, other])
    found = metric_intervals(repeats, holdout, PLAN)
    expected = measure(repeats, labels)
    assert {name: interval.value for name, interval in found.items()} == pytest.approx(expected)
    same = metric_intervals(np.stack([one, one]), holdout, PLAN)
    assert same["auroc"] == metric_interval("auroc", one, holdout, PLAN)


def test_the_ece_of_a_calibrated_model_may_be_zero() -> None:
    rng = np.random.default_rng(9)
    reach = 0
    for _ in range(60):
        probabilities, labels, group = draw_scores(rng, 80)
        reach += metric_interval("ece", probabilities, Holdout(labels, group), Resampling(200)).low == 0
    assert reach >= 53


def test_a_hold_out_of_one_class_has_no_auroc_and_says_so(tmp_path) -> None:
    holdout = Holdout(np.zeros(12, dtype=int), np.arange(12))
    probabilities = np.tile([0.7, 0.3], (12, 1))
    found = metric_intervals(probabilities, holdout, PLAN)
    assert np.isnan(found["auroc"].value)
    assert (found["auroc"].low, found["auroc"].high, found["auroc"].method) == (0, 1, "undefined")
    difference = difference_interval("auroc", probabilities, probabilities[:, ::-1], holdout, PLAN)
    assert (difference.low, difference.high, difference.method) == (-1, 1, "undefined")
    write_json(tmp_path / "metrics.json", found)
    assert read_json(tmp_path / "metrics.json")["auroc"]["value"] is None
    assert class_intervals(probabilities, holdout, PLAN)[1]["recall"].method == "undefined"


def test_one_group_says_nothing_about_others() -> None:
    probabilities, _ = perfect(6)
    probabilities[0] = probabilities[0, ::-1]
    found = metric_interval("macro_f1", probabilities, Holdout(np.arange(6) % 2, np.zeros(6)), PLAN)
    assert (found.low, found.high) == (0, 1)


def test_the_same_seed_gives_the_same_interval_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels, group = draw_scores(np.random.default_rng(10), 40)
    holdout = Holdout(labels, group)
    whole = metric_intervals(probabilities, holdout, PLAN)
    assert metric_intervals(probabilities, holdout, PLAN) == whole
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 7 * len(labels))
    for name, interval in metric_intervals(probabilities, holdout, PLAN).items():
        assert (interval.low, interval.high) == pytest.approx((whole[name].low, whole[name].high))


def test_many_groups_are_left_out_several_at_a_time_without_changing_the_interval_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(11).exponential(size=600)
    one_by_one = bootstrap_interval(mean_of(values), np.arange(600), PLAN)
    monkeypatch.setattr(intervals, "JACKKNIFE_UNITS", 150)
    in_parts = bootstrap_interval(mean_of(values), np.arange(600), PLAN)
    width = one_by_one.high - one_by_one.low
    assert (in_parts.low, in_parts.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=0.1 * width)
