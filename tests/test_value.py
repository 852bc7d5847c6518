"""The forecast of what the next label is worth, and what choosing gained over drawing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from scanloop.learning.control_arm import control_arm
from scanloop.learning.dataset import AUDIT, CONTROL, TRAIN, Known
from scanloop.learning.heads import fit_head
from scanloop.learning.value import value_of_labels

PRICE_EUR = 0.5


def drawn(n: int, seed: int, gap: float = 1.0, noise: float = 0.0) -> Known:
    """Two overlapping clouds in 20 dimensions, with a share of the labels turned over."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    vectors = draw.normal(size=(n, 20))
    vectors[:, :4] += gap * (labels[:, None] - 0.5)
    wrong = draw.random(n) < noise
    ids = np.array([f"s{row}" for row in range(n)], dtype=object)
    return Known(ids, vectors.astype(np.float16), np.where(wrong, 1 - labels, labels), ids.copy(), np.ones(n, bool))


def true_gain(before: int, after: int) -> float:
    """Gain of macro-F1 on ten thousand new images by further labels, mean of twenty draws."""
    test, gains = drawn(10_000, 999), []
    for seed in range(20):
        whole = drawn(after, seed)
        scores = []
        for count in (before, after):
            head = fit_head(whole.vectors[:count], whole.labels[:count], 2, 0.01)
            scores.append(f1_score(test.labels, head.logits(test.vectors).argmax(axis=1), average="macro"))
        gains.append(scores[1] - scores[0])
    return float(np.mean(gains))


def test_the_forecast_of_twice_the_labels_lies_about_what_they_bring() -> None:
    truth = true_gain(60, 120)
    values = [value_of_labels(drawn(60, seed), 2, 0.01, PRICE_EUR, 60, 0) for seed in range(20)]
    found = [value for value in values if value is not None]
    assert len(found) == 20
    assert np.mean([value.gain for value in found]) == pytest.approx(truth, abs=0.6 * truth)
    assert np.mean([value.gain_low <= truth <= value.gain_high for value in found]) >= 0.7
    assert all(value.low <= value.f1_per_eur <= value.high for value in found)


def test_a_euro_buys_as_many_labels_as_its_price_says_and_less_where_labels_are_many() -> None:
    known = drawn(60, 1)
    one, half = (value_of_labels(known, 2, 0.01, price, 10, 0) for price in (PRICE_EUR, PRICE_EUR / 2))
    assert one is not None
    assert half is not None
    assert half.f1_per_eur == pytest.approx(2 * one.f1_per_eur)
    assert (half.gain, one.labels, one.judged) == (one.gain, 60, 60)
    many = np.mean([value_of_labels(drawn(600, seed), 2, 0.01, PRICE_EUR, 10, 0).f1_per_eur for seed in range(3)])
    few = np.mean([value_of_labels(drawn(60, seed), 2, 0.01, PRICE_EUR, 10, 0).f1_per_eur for seed in range(3)])
    assert many < few / 3


def test_labels_that_teach_nothing_are_told_to_stop_and_those_that_may_teach_to_go_on() -> None:
    hopeless = value_of_labels(drawn(600, 0, gap=0.0), 2, 0.01, PRICE_EUR, 10, 0)
    assert hopeless is not None
    assert hopeless.worth(0.01)["verdict"] == "stop"
    assert "asked for" in hopeless.worth(0.01)["why"]
    assert hopeless.worth(0.0)["verdict"] == "go on"
    young = value_of_labels(drawn(30, 0), 2, 0.01, PRICE_EUR, 10, 0)
    assert young is not None
    assert young.worth(young.high - 1e-6)["verdict"] == "go on", "the bound decides, not the estimate"


def test_with_four_groups_of_a_class_nothing_is_forecast() -> None:
    known = drawn(40, 0)
    few = np.concatenate([np.flatnonzero(known.labels == 0), np.flatnonzero(known.labels == 1)[:4]])
    assert value_of_labels(known.take(few), 2, 0.01, PRICE_EUR, 10, 0) is None


def arms(useful: str, seed: int = 0) -> tuple[Known, pd.DataFrame]:
    """Forty given labels, forty controls and eighty chosen ones, of which one kind is turned over where not useful."""
    known = drawn(160, seed, gap=1.5)
    purpose = np.array([TRAIN] * 40 + [CONTROL] * 40 + [TRAIN] * 80)
    turned = (np.arange(160) >= 40) & (purpose != useful)
    labels = np.where(turned, np.random.default_rng(seed).integers(0, 2, 160), known.labels)
    bought = pd.DataFrame({"slice_id": known.slice_ids[40:], "purpose": purpose[40:]})
    return replace(known, labels=labels, drawn=np.arange(160) < 40), bought


def test_chosen_labels_that_teach_more_than_controls_are_seen_to_and_the_other_way_round() -> None:
    better, worse = (control_arm(*arms(useful), 2, 0.01, 0) for useful in (TRAIN, CONTROL))
    assert better is not None
    assert worse is not None
    assert better["labels"] == worse["labels"] == 40
    assert better["chosen"] == 80
    assert better["macro_f1"].low > 0
    assert worse["macro_f1"].high < 0


def test_few_controls_and_audits_say_nothing() -> None:
    known, bought = arms(TRAIN)
    assert control_arm(known, bought.assign(purpose=AUDIT), 2, 0.01, 0) is None
    few = bought["purpose"].where((bought["purpose"] != CONTROL) | (bought.index < 4), AUDIT)
    assert control_arm(known, bought.assign(purpose=few), 2, 0.01, 0) is None
