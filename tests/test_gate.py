"""The gates decide on bounds: luck and small numbers do not pass, real quality does."""

import numpy as np
import pandas as pd
import pytest

from scanloop.config import PromoteConfig, PseudoLabelConfig
from scanloop.evaluation.gates import champion_check, hold_out_checks
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


def f1(low: float, n: int = 200) -> Interval:
    return Interval(0.95, low, 0.99, n, n)


def test_ninety_nine_groups_are_one_too_few_and_the_check_says_so() -> None:
    few, enough = (hold_out_checks(f1(0.9), groups, None, PROMOTE)[0] for groups in (99, 100))
    assert not few.passed
    assert "99 independent groups, 1 fewer than the 100" in few.sentence
    assert enough.passed
    assert (few.value, few.bound) == (99, 100)


@pytest.mark.parametrize(("low", "passed"), [(0.88, True), (0.8799, False), (float("nan"), False)])
def test_the_lower_bound_decides_and_not_the_value(low: float, passed: bool) -> None:
    assert hold_out_checks(f1(low), 200, None, PROMOTE)[1].passed is passed


@pytest.mark.parametrize(("low", "passed"), [(-0.02, True), (-0.021, False), (0.1, True), (float("nan"), False)])
def test_pseudo_labels_must_do_no_harm_at_the_lower_bound(low: float, passed: bool) -> None:
    checks = hold_out_checks(f1(0.9), 200, Interval(0.05, low, 0.2, 200, 200), PROMOTE)
    assert [check.passed for check in checks] == [True, True, passed]
    assert len(hold_out_checks(f1(0.9), 200, None, PROMOTE)) == 2


def predictions(labels: np.ndarray, probabilities: np.ndarray, split: str = "test") -> pd.DataFrame:
    names = np.array(["cancer", "normal"])
    return pd.DataFrame({
        "slice_id": [f"s{row:04d}" for row in range(len(labels))], "split": split, "given_label": names[labels],
        "group_id": np.arange(len(labels)) // 2, "probabilities": list(probabilities[0]),
    })  # fmt: skip


def check(wrong: int, wrong_champion: int, n: int = 400, seed: int = 0) -> tuple:
    labels = np.arange(n) // 2 % 2
    ours, theirs = predictions(labels, arm(labels, wrong, seed)), predictions(labels, arm(labels, wrong_champion))
    return champion_check(ours, theirs.drop(columns="group_id"), CLASSES, CLASSES, PROMOTE)


def test_a_challenger_is_refused_when_worse_and_passes_when_equal_or_better() -> None:
    worse, equal, better = check(60, 4), check(20, 20), check(4, 60)
    assert [worse.passed, equal.passed, better.passed] == [False, True, True]
    assert worse.value < -0.02 < equal.value == 0 < better.value
    assert "against the champion, macro-F1 changes by" in worse.sentence


def test_the_difference_is_paired_so_that_the_same_mistakes_cost_nothing() -> None:
    """Two models with forty mistakes each: the same forty differ by nothing, other forty may."""
    assert check(40, 40).value == 0
    assert check(40, 40, seed=7).value < -0.02


def test_fewer_common_groups_than_needed_refuse() -> None:
    few = check(0, 0, n=198)
    assert not few.passed
    assert "share 99 hold-out groups; 100 are needed" in few.sentence


def test_only_held_out_rows_with_a_given_label_compare_and_a_slice_counts_once() -> None:
    labels = np.arange(400) // 2 % 2
    ours, theirs = predictions(labels, arm(labels, 20)), predictions(labels, arm(labels, 20))
    pool = predictions(labels, arm(labels, 400), "pool").assign(slice_id=lambda frame: "p" + frame["slice_id"])
    unknown = predictions(labels, arm(labels, 400)).assign(
        given_label=None, slice_id=lambda frame: "u" + frame["slice_id"]
    )
    more = pd.concat([ours, ours, pool, unknown], ignore_index=True)
    found = champion_check(more, pd.concat([theirs, pool, unknown]), CLASSES, CLASSES, PROMOTE)
    assert (found.passed, found.value) == (True, 0)
    assert "(n=400, 200 groups)" in found.sentence


@pytest.mark.parametrize(("theirs", "agreeing", "of"), [
    (["normal", "cancer"], 0, 2), (["cancer", "normal", "unclear"], 2, 3), (["cancer"], 1, 2),
])  # fmt: skip
def test_a_champion_of_other_classes_cannot_be_compared_and_the_sentence_names_them(
    theirs: list[str], agreeing: int, of: int
) -> None:
    labels = np.arange(400) // 2 % 2
    ours = predictions(labels, arm(labels, 0))
    found = champion_check(ours, ours.drop(columns="group_id"), CLASSES, theirs, PROMOTE)
    assert (found.passed, found.value, found.bound) == (False, agreeing, of)
    assert f"the champion tells apart {', '.join(theirs)} and the challenger cancer, normal" in found.sentence
    assert "another promote.model_name" in found.sentence
