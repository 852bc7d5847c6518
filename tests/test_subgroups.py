"""Metrics of parts of the hold-out."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.subgroups import gap, strata, subgroups

PLAN = Resampling(400)


def answers(n: int = 240, worse: float = 0.0, seed: int = 0) -> tuple[np.ndarray, Holdout, pd.Series]:
    """Predictions that are wrong on a tenth, and on so many more of the part "far"; groups of two."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, n)
    part = pd.Series(np.where(np.arange(n) % 6 < 2, "far", "near"), dtype=object)
    wrong = draw.random(n) < 0.1 + worse * (part == "far").to_numpy()
    said = np.where(wrong, 1 - labels, labels)
    probabilities = np.where(said[:, None] == np.arange(2), 0.8, 0.2)[None]
    return probabilities, Holdout(labels, np.array([f"g{row // 2}" for row in range(n)])), part


def test_a_part_s_metrics_are_those_of_its_images_alone() -> None:
    probabilities, holdout, part = answers(worse=0.3)
    found = subgroups(probabilities, holdout, {"site": part}, PLAN, 10)["strata"]["site"]["parts"]
    for name in ("far", "near"):
        rows = (part == name).to_numpy()
        said = probabilities[0, rows].argmax(axis=1)
        metrics = found[name]["metrics"]
        assert metrics["accuracy"].value == pytest.approx(accuracy_score(holdout.labels[rows], said))
        assert metrics["macro_f1"].value == pytest.approx(f1_score(holdout.labels[rows], said, average="macro"))
        assert (found[name]["images"], found[name]["groups"]) == (rows.sum(), rows.sum() // 2)
    both = [found[name]["accuracy_gap"].value for name in ("far", "near")]
    assert both[0] == pytest.approx(-both[1])


def test_a_part_that_is_served_worse_is_found_and_one_that_is_not_is_not() -> None:
    probabilities, holdout, part = answers(worse=0.4)
    far = subgroups(probabilities, holdout, {"site": part}, PLAN, 10)["strata"]["site"]["parts"]["far"]
    assert far["accuracy_gap"].high < 0
    alike = [
        subgroups(*answers(seed=seed)[:2], {"site": answers(seed=seed)[2]}, PLAN, 10)["strata"]["site"]["parts"]
        for seed in range(10)
    ]
    assert sum(parts["far"]["accuracy_gap"].low <= 0 <= parts["far"]["accuracy_gap"].high for parts in alike) >= 9


def test_small_parts_are_counted_and_not_shown_and_unknown_ones_too() -> None:
    probabilities, holdout, part = answers()
    part = part.where(np.arange(240) >= 10, "tiny").where(np.arange(240) < 230, None)
    found = subgroups(probabilities, holdout, {"site": part}, PLAN, 10)
    assert set(found["strata"]["site"]["parts"]) == {"far", "near"}
    assert found["strata"]["site"]["hidden"] == {"parts": 1, "images": 10}
    assert (found["strata"]["site"]["unknown"], found["comparisons"]) == (10, 2)


def test_the_more_parts_are_looked_at_the_wider_each_gap_s_interval() -> None:
    probabilities, holdout, part = answers()
    one = subgroups(probabilities, holdout, {"a": part}, PLAN, 10)["strata"]["a"]["parts"]["far"]["accuracy_gap"]
    many = {f"s{number}": part for number in range(10)}
    ten = subgroups(probabilities, holdout, many, PLAN, 10)["strata"]["s0"]["parts"]["far"]["accuracy_gap"]
    assert one.confidence == pytest.approx(1 - 0.05 / 2)
    assert ten.confidence == pytest.approx(1 - 0.05 / 20)
    assert ten.low < one.low < one.value < one.high < ten.high


def test_a_part_without_an_error_may_still_hold_those_that_few_groups_missed() -> None:
    right = np.ones(60)
    right[30:36] = 0
    rows = np.arange(60) < 20
    found = gap(right, rows, Holdout(np.arange(60) % 2, np.arange(60)), PLAN)
    assert found is not None
    assert found.low <= found.value - (1 - 0.025 ** (1 / 20)) + 1e-9
    assert gap(right, np.ones(60, bool), Holdout(np.arange(60) % 2, np.arange(60)), PLAN) is None


def test_numbers_of_many_values_become_thirds_and_text_stays() -> None:
    rows = pd.DataFrame({"slice_id": [f"s{row}" for row in range(30)], "site": ["a", "b"] * 15, "modality": "MR"})
    ages = pd.DataFrame({"slice_id": rows["slice_id"], "name": "age", "value": [str(20 + row) for row in range(30)]})
    ages = pd.concat([ages.iloc[:27], pd.DataFrame({"slice_id": ["other"], "name": ["age"], "value": ["x"]})])
    found = strata(rows, ages, {"brightness": pd.Series(range(30), index=rows["slice_id"], dtype=float)})
    assert set(found) == {"site", "age", "brightness"}  # one modality parts nothing
    assert found["site"].tolist() == ["a", "b"] * 15
    assert found["age"].isna().sum() == 3
    sizes = found["age"].value_counts()
    assert sizes.tolist() == [9, 9, 9]
    assert sorted(sizes.index) == ["lowest third, to 28.67", "middle third, to 37.33", "top third, above 37.33"]
