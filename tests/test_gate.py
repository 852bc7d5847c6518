"""The gates decide on bounds: luck and small numbers do not pass, real quality does."""

import numpy as np
import pandas as pd
import pytest

from scanloop.config import PromoteConfig, PseudoLabelConfig
from scanloop.evaluation.exact import at_tail, f1_lower_bound
from scanloop.evaluation.gates import (
    CHAMPION_CHECK,
    Check,
    Rival,
    best_champion_checks,
    hold_out_checks,
    looks_check,
    rival_checks,
)
from scanloop.evaluation.intervals import exact_interval
from scanloop.evaluation.judged import Judged, against, holdout_digest, judged_rows
from scanloop.learning.gate import judge
from scanloop.learning.trial import Trial
from scanloop.types import Interval

CONFIG = PseudoLabelConfig(min_f1=0.88, margin=0.02)
CLASSES = ["cancer", "normal"]
PROMOTE = PromoteConfig(min_f1=0.88, margin=0.02, min_groups=100)


def arm(labels: np.ndarray, wrong: int, seed: int = 0) -> np.ndarray:
    """Probabilities (1, n, 2) that are right but for some rows."""
    rows = np.random.default_rng(seed).permutation(len(labels))[:wrong]
    said = labels.copy()
    said[rows] = 1 - said[rows]
    return (np.eye(2)[said] * 0.8 + 0.1)[None]


def trial(n: int, wrong: int, wrong_supervised: int, seed: int = 0) -> Trial:
    labels = np.arange(n) % 2
    return Trial(labels, np.arange(n), arm(labels, wrong_supervised, 0), arm(labels, wrong, seed), "cross_validation")


def test_a_wave_that_is_truly_good_passes() -> None:
    verdict = judge(trial(400, wrong=8, wrong_supervised=8), CONFIG)
    assert verdict.passed
    assert verdict.semi_supervised_macro_f1.low >= 0.88
    assert "both bounds hold" in verdict.reason
    assert "n=400, 400 groups" in verdict.reason


def test_perfect_predictions_of_five_images_do_not_pass() -> None:
    verdict = judge(trial(5, wrong=0, wrong_supervised=0), CONFIG)
    assert verdict.semi_supervised_macro_f1.value == 1
    assert not verdict.passed
    assert verdict.semi_supervised_macro_f1.low < 0.6


def test_a_value_above_the_minimum_with_a_bound_below_it_does_not_pass() -> None:
    verdict = judge(trial(60, wrong=4, wrong_supervised=4), CONFIG)
    assert verdict.semi_supervised_macro_f1.value > 0.88 > verdict.semi_supervised_macro_f1.low
    assert not verdict.passed
    assert "the lower bound of macro-F1 is" in verdict.reason
    assert "may fall" not in verdict.reason


def test_a_wave_that_may_lose_more_than_the_margin_does_not_pass() -> None:
    verdict = judge(trial(400, wrong=16, wrong_supervised=0), CONFIG)
    assert verdict.semi_supervised_macro_f1.low > 0.88
    assert verdict.difference.low < -0.02
    assert not verdict.passed
    assert "may fall by" in verdict.reason


def test_a_small_gain_that_may_be_a_loss_does_not_pass() -> None:
    verdict = judge(trial(80, wrong=3, wrong_supervised=4, seed=5), CONFIG.model_copy(update={"min_f1": 0.5}))
    assert verdict.difference.value > 0 > verdict.difference.low
    assert not verdict.passed


def test_many_images_of_few_groups_weigh_no_more_than_the_groups() -> None:
    labels = np.arange(10).repeat(40) % 2
    groups = np.arange(10).repeat(40)
    perfect = arm(labels, 0)
    verdict = judge(Trial(labels, groups, perfect, perfect, "validation"), CONFIG)
    assert verdict.semi_supervised_macro_f1.value == 1
    assert not verdict.passed
    assert judge(Trial(labels, np.arange(400), perfect, perfect, "validation"), CONFIG).passed


def test_a_hold_out_without_one_of_the_classes_proves_nothing() -> None:
    labels = np.zeros(300, np.int64)
    said = (np.eye(2)[np.arange(300) % 2] * 0.8 + 0.1)[None]
    assert not judge(Trial(labels, np.arange(300), said, said, "validation"), CONFIG).passed


def f1(low: float, n: int = 200, method: str = "bootstrap") -> Interval:
    return Interval(0.95, low, 0.99, n, n, method=method)


def judged(labels: np.ndarray, wrong: int, size: int = 2, seed: int = 0) -> Judged:
    ids = np.array([f"s{row:05d}" for row in range(len(labels))])
    return Judged(ids, labels, np.arange(len(labels)) // size, arm(labels, wrong, seed)[0])


GOOD = judged(np.arange(400) // 2 % 2, wrong=4)


def own_checks(f1: Interval, groups: int = 200, gain: Interval | None = None, rows: Judged = GOOD) -> dict[str, Check]:
    return {check.name: check for check in hold_out_checks(f1, rows, groups, gain, 0.025, PROMOTE)}


def test_ninety_nine_groups_are_one_too_few_and_the_check_says_so() -> None:
    few, enough = (own_checks(f1(0.9), groups)["hold-out groups"] for groups in (99, 100))
    assert not few.passed
    assert "99 independent groups, 1 fewer than the 100" in few.sentence
    assert enough.passed
    assert (few.value, few.bound) == (99, 100)


@pytest.mark.parametrize(("low", "passed"), [(0.88, True), (0.8799, False), (float("nan"), False)])
def test_the_lower_bound_decides_and_not_the_value(low: float, passed: bool) -> None:
    assert own_checks(f1(low))["macro-F1"].passed is passed


@pytest.mark.parametrize(("low", "passed"), [(-0.02, True), (-0.021, False), (0.1, True), (float("nan"), False)])
def test_pseudo_labels_must_do_no_harm_at_the_lower_bound(low: float, passed: bool) -> None:
    checks = own_checks(f1(0.9), gain=Interval(0.05, low, 0.2, 200, 200))
    assert [check.passed for check in checks.values()] == [True, True, True, passed]
    assert len(own_checks(f1(0.9))) == 3


def test_perfect_predictions_of_five_images_pass_no_check_on_f1_though_their_bootstrap_says_one() -> None:
    perfect = judged(np.arange(5) % 2, wrong=0, size=1)
    checks = own_checks(Interval(1.0, 1.0, 1.0, 5, 5, method="exact"), rows=perfect)
    assert [checks[name].passed for name in ("macro-F1", "macro-F1 by chance")] == [False, False]
    assert checks["macro-F1"].value < 0.4
    assert own_checks(f1(0.95))["macro-F1 by chance"].passed


def test_the_exact_bound_is_clopper_pearson_of_each_class_s_precision_and_recall() -> None:
    rows = judged(np.repeat([0, 1], [60, 140]), wrong=9, size=1)
    said, bounds = rows.probabilities.argmax(axis=1), []
    for label in (0, 1):
        right = ((said == label) & (rows.labels == label)).sum()
        recall, precision = (exact_interval(int(right), int(n), 1 - 0.05 / 4).low
                             for n in ((rows.labels == label).sum(), (said == label).sum()))  # fmt: skip
        bounds.append(2 / (1 / recall + 1 / precision))
    assert f1_lower_bound(rows, 0.025, 0) == pytest.approx(np.mean(bounds))


def test_a_bound_moves_away_as_the_error_rate_falls_and_never_closer() -> None:
    interval, exact = f1(0.9), f1(0.9, method="exact")
    assert at_tail(interval, 0.025) == at_tail(interval, 0.2) == 0.9
    lows = [at_tail(interval, tail) for tail in (0.0125, 0.004, 0.001)]
    assert sorted(lows, reverse=True) == lows
    assert at_tail(exact, 0.001) < lows[-1]


def test_a_look_too_many_is_refused_and_says_what_to_collect() -> None:
    config = PROMOTE.model_copy(update={"max_looks": 3})
    assert looks_check(3, config).passed
    refused = looks_check(4, config)
    assert not refused.passed
    assert "has judged 3 models" in refused.sentence
    assert "collect a new hold-out" in refused.sentence


def predictions(rows: Judged, split: str = "test") -> pd.DataFrame:
    names = np.array(CLASSES)
    return pd.DataFrame({
        "slice_id": rows.slice_ids, "split": split, "given_label": names[rows.labels],
        "probabilities": list(rows.probabilities),
    })  # fmt: skip


def manifest(rows: Judged) -> pd.DataFrame:
    names = np.array(CLASSES)
    return pd.DataFrame({"slice_id": rows.slice_ids, "group_id": rows.groups.astype(str), "label": names[rows.labels]})


def rival(rows: Judged, version: str = "1", classes: list[str] = CLASSES) -> Rival:
    return Rival(version, predictions(rows), classes)


def check(wrong: int, wrong_champion: int, n: int = 800, seed: int = 0) -> list[Check]:
    labels = np.arange(n) // 2 % 2
    champion = rival(judged(labels, wrong_champion))
    return rival_checks(CHAMPION_CHECK, judged(labels, wrong, seed=seed), CLASSES, champion, 0.025, PROMOTE)


def test_a_challenger_is_refused_when_worse_and_passes_when_equal_or_better() -> None:
    worse, equal, better = check(60, 4), check(20, 20), check(4, 60)
    assert [all(one.passed for one in found) for found in (worse, equal, better)] == [False, True, True]
    assert worse[0].value < -0.02 < equal[0].value == 0 < better[0].value
    assert "against the champion, macro-F1 changes by" in worse[0].sentence
    assert worse[1].value == 1.0  # the chance of looking this good


def test_the_difference_is_paired_so_that_the_same_mistakes_cost_nothing() -> None:
    """Two models with forty mistakes each: the same forty differ by nothing, other forty may."""
    assert check(40, 40)[0].value == 0
    assert check(40, 40, seed=7)[0].value < -0.02


def test_fewer_common_groups_than_needed_refuse() -> None:
    (few,) = check(0, 0, n=198)
    assert not few.passed
    assert "share 99 hold-out groups; 100 are needed" in few.sentence


def test_only_held_out_rows_with_a_label_of_the_catalog_judge_and_a_slice_counts_once() -> None:
    """Bought labels stand in the predictions, and are held out of folds: they judge nothing all the same."""
    rows = judged(np.arange(400) // 2 % 2, 20)
    pool = predictions(judged(np.ones(60, np.int64), 60), "pool").assign(slice_id=lambda frame: "p" + frame["slice_id"])
    bought = predictions(judged(np.ones(80, np.int64), 80), "cross_validation")
    bought["slice_id"] = "b" + bought["slice_id"]
    unlabelled = pd.DataFrame({"slice_id": bought["slice_id"], "group_id": "g", "label": None})
    table = pd.concat([predictions(rows), predictions(rows), pool, bought], ignore_index=True)
    found = judged_rows(table, pd.concat([manifest(rows), unlabelled]), CLASSES)
    assert found.slice_ids.tolist() == rows.slice_ids.tolist()
    np.testing.assert_array_equal(found.labels, rows.labels)
    both = against(found, pd.concat([predictions(judged(rows.labels, 7)), pool, bought]))
    np.testing.assert_array_equal(both.rival, arm(rows.labels, 7)[0])


def test_the_hold_out_s_digest_knows_slices_and_labels_and_nothing_else() -> None:
    rows, other = judged(np.arange(40) % 2, 3), judged(np.arange(40) % 2, 9)
    assert holdout_digest(rows, CLASSES) == holdout_digest(other, CLASSES)
    relabelled = judged(np.r_[1, np.arange(1, 40) % 2], 3)
    fewer = judged(np.arange(39) % 2, 3)
    assert len({holdout_digest(each, CLASSES) for each in (rows, relabelled, fewer)}) == 3


@pytest.mark.parametrize(("theirs", "agreeing", "of"), [
    (["normal", "cancer"], 0, 2), (["cancer", "normal", "unclear"], 2, 3), (["cancer"], 1, 2),
])  # fmt: skip
def test_a_champion_of_other_classes_cannot_be_compared_and_the_sentence_names_them(
    theirs: list[str], agreeing: int, of: int
) -> None:
    (found,) = rival_checks(CHAMPION_CHECK, GOOD, CLASSES, rival(GOOD, classes=theirs), 0.025, PROMOTE)
    assert (found.passed, found.value, found.bound) == (False, agreeing, of)
    assert f"the champion tells apart {', '.join(theirs)} and the challenger cancer, normal" in found.sentence
    assert "another promote.model_name" in found.sentence


def test_small_losses_do_not_add_up() -> None:
    """Each model loses 1.5 points to the one before, on 20,000 images, where the margin of 2 points lets that pass."""
    labels = np.arange(20_000) % 2
    rows = [judged(labels, wrong, size=1) for wrong in (400, 700, 1000)]  # the same mistakes and more
    champions = [rival(each, str(number + 1)) for number, each in enumerate(rows)]
    second = rival_checks(CHAMPION_CHECK, rows[1], CLASSES, champions[0], 0.004, PROMOTE)
    assert all(one.passed for one in second)
    third = rival_checks(CHAMPION_CHECK, rows[2], CLASSES, champions[1], 0.002, PROMOTE)
    assert all(one.passed for one in third)  # against the champion of the day alone it would go on for ever
    anchored = best_champion_checks(rows[2], CLASSES, [champions[0]], 0.002, PROMOTE)
    assert not any(one.passed for one in anchored)
    assert "against the best champion so far (version 1)" in anchored[0].sentence


def test_the_best_of_the_former_champions_is_told_and_those_that_cannot_be_compared_are_left_out() -> None:
    labels = np.arange(4000) % 2
    ours, best, worse = (judged(labels, wrong, size=1) for wrong in (100, 20, 150))
    former = [rival(worse, "1"), rival(best, "2"), rival(worse, "3"), rival(best, "4", ["normal", "cancer"])]
    found = best_champion_checks(ours, CLASSES, former, 0.01, PROMOTE)
    assert "(version 2)" in found[0].sentence
    assert best_champion_checks(ours, CLASSES, former[3:], 0.01, PROMOTE) == []
