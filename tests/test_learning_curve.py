"""The gain from labels: nested subsets, and what a learner makes of them."""

import numpy as np
import pytest
from learning_data import new_known
from sklearn.metrics import f1_score

from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.learning_curve import SHARES, learning_curve, nested
from scanloop.learning.heads import fit_head

PLAN = Resampling(200)


def test_a_smaller_set_lies_in_the_larger_ones_with_whole_groups_and_every_class() -> None:
    labels = np.repeat([0, 0, 0, 1], 30)
    groups = np.array([f"g{row // 3}" for row in range(120)])
    for seed in range(5):
        sets = [set(nested(labels, groups, share, seed)) for share in (0.1, 0.4, 1.0)]
        assert sets[0] < sets[1] < sets[2] == set(range(120))
        for rows, size in zip(sets, (12, 48, 120), strict=True):
            assert len(rows) == size
            assert {row for row in range(120) if groups[row] in groups[sorted(rows)]} == rows
            assert np.mean(labels[sorted(rows)]) == 0.25
    assert nested(labels, groups, 0.1, 0).tolist() != nested(labels, groups, 0.1, 1).tolist()


def test_a_curve_is_the_mean_over_draws_of_heads_that_learn_from_the_share() -> None:
    known = new_known(n=160, d=20, gap=0.35, seed=2)
    train, test = np.arange(100), np.arange(100, 160)
    seen: list[tuple[int, int]] = []

    def learn(rows: np.ndarray, judged: np.ndarray, seed: int) -> np.ndarray:
        seen.append((len(rows), seed))
        logits = fit_head(known.vectors[rows], known.labels[rows], 2, 0.1).logits(known.vectors[judged])
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    found = learning_curve([[(train, test)]] * 4, learn, known.labels, known.groups, PLAN, 2)
    assert [point["share"] for point in found["points"]] == list(SHARES)
    assert [point["groups"] for point in found["points"]] == [4, 10, 20, 36, 50]  # of each class in proportion
    assert len(seen) == 20
    scores = [
        f1_score(known.labels[test], learn(train[nested(known.labels[train], known.groups[train], 0.2, draw)], test, 0)
                 .argmax(axis=1), average="macro")
        for draw in range(4)
    ]  # fmt: skip
    point = found["points"][1]
    assert point["macro_f1"].value == pytest.approx(np.mean(scores))
    assert (point["draw_low"], point["draw_high"]) == (min(scores), max(scores))
    gain = found["gain"]
    ends = {point["groups"]: point["macro_f1"].value for point in found["points"]}
    assert (gain["from_groups"], gain["to_groups"]) == (20, 50)
    assert gain["macro_f1"].value == pytest.approx(ends[50] - ends[20])
    assert found["points"][0]["macro_f1"].value < found["points"][-1]["macro_f1"].value


def test_parts_that_judge_in_turn_predict_each_row_once_from_other_groups() -> None:
    labels, groups = np.tile([0, 1], 12), np.array([f"g{row // 2}" for row in range(24)])
    halves = [(np.arange(12), np.arange(12, 24)), (np.arange(12, 24), np.arange(12))]

    def learn(rows: np.ndarray, judged: np.ndarray, seed: int) -> np.ndarray | None:
        assert not set(groups[rows]) & set(groups[judged])
        return None if len(rows) < 4 else np.eye(2)[labels[judged]]

    found = learning_curve([halves], learn, labels, groups, PLAN, 2)
    assert [point["share"] for point in found["points"]] == [0.4, 0.7, 1.0]  # too few rows before
    assert {point["macro_f1"].n for point in found["points"]} == {24}
    assert all(point["macro_f1"].value == 1 for point in found["points"])


def test_a_learner_that_never_has_enough_leaves_no_curve() -> None:
    labels, groups = np.tile([0, 1], 4), np.arange(8)
    cut = (np.arange(4), np.arange(4, 8))
    found = learning_curve([[cut]], lambda *_: None, labels, groups, PLAN, 2)
    assert (found["points"], found["gain"]) == ([], None)
