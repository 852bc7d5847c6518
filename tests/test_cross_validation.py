"""Repeated stratified group cross-validation: no group is on both sides, and only drawn rows judge."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_data import new_known

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.maps import temperature
from scanloop.calibration.scaling import fit_temperature
from scanloop.errors import TooFewLabelsError
from scanloop.learning.cross_validation import Fold, cross_fitted, group_folds
from scanloop.learning.dataset import require_classes


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 50), st.integers(2, 3))
def test_a_group_is_never_on_both_sides_and_each_row_is_tested_once_a_repeat(
    folds: int, repeats: int, seed: int, classes: int
) -> None:
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 30, 80)
    labels = (groups * 7 + seed) % classes
    cuts = group_folds(labels, groups, folds, repeats, seed)
    for repeat in range(repeats):
        mine = [cut for cut in cuts if cut.repeat == repeat]
        assert [cut.number for cut in mine] == list(range(len(mine)))
        assert sorted(np.concatenate([cut.test for cut in mine])) == list(range(80))
    for cut in cuts:
        assert not set(groups[cut.train]) & set(groups[cut.test])
        assert sorted([*cut.train, *cut.test]) == list(range(80))
        assert set(labels[cut.train]) == set(labels)


def test_repeats_cut_differently_and_a_seed_decides_them() -> None:
    known = new_known()
    first, again = (group_folds(known.labels, known.groups, 5, 2, 3) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.test, other.test)
    assert any(not np.array_equal(one.test, other.test) for one, other in zip(first[:5], first[5:], strict=True))


def test_fewer_folds_are_cut_where_the_rarest_class_has_fewer_groups() -> None:
    known = new_known(n=40)
    labels = np.isin(known.groups, ["g0001", "g0004", "g0009"]).astype(np.int64)
    assert len(group_folds(labels, known.groups, 10, 1, 0)) == 3


@pytest.mark.parametrize("labels", [np.zeros(20, np.int64), (np.arange(20) < 2).astype(np.int64)])
def test_one_class_or_one_group_of_a_class_is_too_few(labels: np.ndarray) -> None:
    with pytest.raises(TooFewLabelsError, match="2 classes with 2 groups each"):
        group_folds(labels, np.arange(20) // 2, 5, 1, 0)


def by_temperature(logits: np.ndarray, labels: np.ndarray) -> Callable[[Fold, np.ndarray], Calibrator]:
    return lambda cut, rows: temperature(logits[cut.repeat, rows], labels[rows])


def test_each_fold_is_divided_by_the_temperature_of_the_others() -> None:
    known = new_known(n=40, bought=10)
    cuts = group_folds(known.labels, known.groups, 4, 2, 0)
    logits = np.random.default_rng(0).normal(size=(2, 40, 2)) + 2 * np.eye(2)[known.labels]
    before = logits.copy()
    scaled = cross_fitted(logits, cuts, known.drawn, by_temperature(logits, known.labels))
    np.testing.assert_array_equal(logits, before)
    for cut in cuts:
        others = np.setdiff1d(np.flatnonzero(known.drawn), cut.test)
        expected = fit_temperature(logits[cut.repeat, others], known.labels[others])
        np.testing.assert_allclose(scaled[cut.repeat, cut.test] * expected, logits[cut.repeat, cut.test], atol=1e-9)


def test_neither_a_rows_own_label_nor_a_bought_one_reaches_its_temperature() -> None:
    known = new_known(n=40, bought=10)
    cuts = group_folds(known.labels, known.groups, 4, 1, 0)
    logits = np.random.default_rng(0).normal(size=(1, 40, 2)) + 2 * np.eye(2)[known.labels]

    def found(labels: np.ndarray) -> np.ndarray:
        return cross_fitted(logits, cuts, known.drawn, by_temperature(logits, labels))

    scaled = found(known.labels)
    bought_wrong = np.where(known.drawn, known.labels, 1 - known.labels)
    np.testing.assert_array_equal(found(bought_wrong), scaled)
    test = cuts[0].test
    own_wrong = known.labels.copy()
    own_wrong[test] = 1 - own_wrong[test]
    np.testing.assert_array_equal(found(own_wrong)[0, test], scaled[0, test])
    assert not np.allclose(found(own_wrong), scaled)


def test_a_class_without_two_groups_is_named() -> None:
    known = new_known(n=20)
    require_classes(known, ["a", "b"])
    with pytest.raises(TooFewLabelsError, match="class 'c' has 0"):
        require_classes(known, ["a", "b", "c"])
    with pytest.raises(TooFewLabelsError, match="class 'b' has 1"):
        require_classes(replace(known, labels=(known.groups == "g0003").astype(np.int64)), ["a", "b"])
