"""Resamples by kinds of groups equal those by groups; where the loss is the margin, few challengers pass."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom
from sklearn.metrics import f1_score

from scanloop.evaluation.intervals import Resampling, bootstrap_interval
from scanloop.evaluation.metrics import macro_f1 as macro_f1_of_images
from scanloop.evaluation.tallies import lower_bound, macro_f1, macro_f1_difference, tally, tilted_p_value

BOTH_WRONG, MARGIN = 0.03, 0.02


def test_the_value_is_the_macro_f1_of_the_images() -> None:
    rng = np.random.default_rng(0)
    labels, first, second = rng.integers(0, 3, (3, 200))
    found = tally(labels, np.arange(200) // 3, [first, second], 3)
    values = [f1_score(labels, said, average="macro") for said in (first, second)]
    assert macro_f1(found)(found.total)[0] == pytest.approx(values[0])
    assert macro_f1_difference(found)(found.total)[0] == pytest.approx(values[0] - values[1])
    assert found.groups == 67


def test_the_bound_is_that_of_the_bootstrap_over_images_weighted_by_their_groups() -> None:
    labels, champion, challenger, groups = simulate(np.random.default_rng(1), 200, 0.5, (0.05, 0.03), 4)
    found = tally(labels, groups, [challenger, champion], 2)
    one, other = np.eye(2)[challenger], np.eye(2)[champion]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return macro_f1_of_images(one, labels, weights) - macro_f1_of_images(other, labels, weights)

    slow = bootstrap_interval(statistic, groups, Resampling(4000, 0.95))
    assert lower_bound(found, macro_f1_difference(found), 0.025, 0) == pytest.approx(slow.low, abs=0.003)


@pytest.mark.parametrize("n", [50, 120, 300])
def test_without_a_loss_the_chance_is_that_of_none_in_n(n: int) -> None:
    """Balanced classes, equal models: a loss of `MARGIN` is then one image in fifty, and none is seen with 0.98^n."""
    labels = np.arange(n) % 2
    found = tally(labels, np.arange(n), [labels, labels], 2)
    p_value = tilted_p_value(found, macro_f1_difference(found), -MARGIN, 0.01, 0)
    assert p_value == pytest.approx(binom.pmf(0, n, MARGIN), abs=0.02)
    assert lower_bound(found, macro_f1_difference(found), 0.01, 0) == pytest.approx(-(1 - 0.01 ** (1 / n)))


def test_a_value_below_the_bound_has_no_chance_to_pass_and_a_higher_bar_is_harder() -> None:
    labels = np.arange(400) % 2
    said = np.where(np.arange(400) < 30, 1 - labels, labels)
    found = tally(labels, np.arange(400), [said], 2)
    bars = (0.95, 0.91, 0.9, 0.88, 0.8)
    chances = [tilted_p_value(found, macro_f1(found), bar, 0.01, 0) for bar in bars]
    assert chances[0] == 1
    assert sorted(chances, reverse=True) == chances
    assert chances[-1] < 0.001


def simulate(rng, n: int, share: float, rates: tuple[float, float], size: int) -> tuple[np.ndarray, ...]:
    """Labels, champion and challenger of n groups with up to `size` images, most of which have one fate."""
    groups = np.repeat(np.arange(n), rng.integers(1, size + 1, n))
    labels = (rng.random(n) < share).astype(int)[groups]
    together = (rng.random(n) < 0.6)[groups]
    fate = np.where(together, rng.random(n)[groups], rng.random(len(groups)))
    loss, gain = rates
    wrong = fate < BOTH_WRONG
    lost = ~wrong & (fate < BOTH_WRONG + loss)
    gained = ~wrong & ~lost & (fate < BOTH_WRONG + loss + gain)
    return labels, np.where(wrong | gained, 1 - labels, labels), np.where(wrong | lost, 1 - labels, labels), groups


def expected_f1(share: float, error: float) -> float:
    right = np.array([(1 - share) * (1 - error), share * (1 - error)])
    true, said = np.array([1 - share, share]), right + np.array([share, 1 - share]) * error
    return float((2 * right / (true + said)).mean())


@pytest.mark.parametrize(("n", "share", "gain", "size"), [
    (100, 0.5, 0.02, 4), (300, 0.5, 0.0, 1), (300, 0.15, 0.02, 4), (300, 0.5, 0.05, 4),
])  # fmt: skip
def test_a_challenger_that_is_worse_by_the_margin_passes_no_more_often_than_it_may(
    n: int, share: float, gain: float, size: int
) -> None:
    def loss(rate: float) -> float:
        return expected_f1(share, BOTH_WRONG + rate) - expected_f1(share, BOTH_WRONG + gain) + MARGIN

    rate, tail, trials = brentq(loss, 0, 0.5), 0.0125, 300
    rng, passed, by_bootstrap = np.random.default_rng(n), 0, 0
    for _ in range(trials):
        labels, champion, challenger, groups = simulate(rng, n, share, (rate, gain), size)
        found = tally(labels, groups, [challenger, champion], 2)
        low = lower_bound(found, macro_f1_difference(found), tail, 0)
        by_bootstrap += low >= -MARGIN
        if low >= -MARGIN:
            order = rng.permutation(len(groups))
            rows = order[np.unique(groups[order], return_index=True)[1]]
            one = tally(labels[rows], groups[rows], [challenger[rows], champion[rows]], 2)
            passed += tilted_p_value(one, macro_f1_difference(one), -MARGIN, tail, 0) <= tail
    assert passed <= binom.ppf(0.999, trials, tail)
    assert passed <= by_bootstrap


def test_a_challenger_that_is_better_passes() -> None:
    rng, passed = np.random.default_rng(0), 0
    for _ in range(40):
        labels, champion, challenger, groups = simulate(rng, 400, 0.5, (0.005, 0.04), 3)
        found = tally(labels, groups, [challenger, champion], 2)
        rows = np.unique(groups, return_index=True)[1]
        one = tally(labels[rows], groups[rows], [challenger[rows], champion[rows]], 2)
        low = lower_bound(found, macro_f1_difference(found), 0.0125, 0)
        passed += low >= -MARGIN and tilted_p_value(one, macro_f1_difference(one), -MARGIN, 0.0125, 0) <= 0.0125
    assert passed >= 38
