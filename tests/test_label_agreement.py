"""Kappas against the published tables, other libraries and hand counts; and of a store's readings."""

from pathlib import Path

import numpy as np
import pytest
from label_stores import enrol, publish_images, read_one
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from scanloop.labelling.agreement import cohen_kappa, fleiss_kappa, measure_agreement
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.reading import withdraw
from scanloop.labelling.store import Store

TABLE_OF_FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
"""Ten subjects, fourteen raters, five answers: the example that the literature hands down, kappa 0.210."""


def test_fleiss_kappa_is_that_of_the_textbook_and_of_another_library() -> None:
    assert fleiss_kappa(np.array(TABLE_OF_FLEISS)) == pytest.approx(0.210, abs=5e-4)
    draw = np.random.default_rng(0)
    for _ in range(20):
        counts = draw.multinomial(4, draw.dirichlet(np.ones(3)), size=30)
        assert fleiss_kappa(counts) == pytest.approx(fleiss_of_statsmodels(counts))


def test_cohen_kappa_is_that_of_a_hand_count_and_of_another_library() -> None:
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5)), "0.7 observed, 0.5 by chance"
    draw = np.random.default_rng(1)
    for _ in range(20):
        one, other = draw.integers(0, 3, size=(2, 60))
        table = np.zeros((3, 3), dtype=int)
        np.add.at(table, (one, other), 1)
        assert cohen_kappa(one.tolist(), other.tolist()) == pytest.approx(cohens_kappa(table).kappa)


def test_a_kappa_that_is_not_defined_is_none() -> None:
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    assert fleiss_kappa(np.zeros((0, 2), dtype=np.int64)) is None
    assert fleiss_kappa(np.array([[2, 0], [2, 0]])) is None


def test_images_with_different_numbers_of_readings_count_by_their_pairs() -> None:
    counts = np.array([[2, 0], [1, 2]])
    observed, expected = (1 + 1 / 3) / 2, (3 / 5) ** 2 + (2 / 5) ** 2
    assert fleiss_kappa(counts) == pytest.approx((observed - expected) / (1 - expected))


def test_agreement_and_counts_are_of_the_readings_that_stand(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 5, policy=DoubleReading("all"))
    enrol(store, "anna", "ben", "carl")
    for given in ("normal", "normal", "pneumonia", "unsure"):
        read_one(store, "anna", given)
    for given in ("normal", "pneumonia", "pneumonia", "bad image"):
        read_one(store, "ben", given)
    withdraw(store, "ben", read_one(store, "ben", "normal").task)
    found = measure_agreement(store)
    (pair,) = found.pairs
    assert (pair.readers, pair.images, pair.share) == (("anna", "ben"), 4, 0.5)
    by_chance = (2 * 1 + 1 * 2) / 16  # both normal, both pneumonia; "unsure" and "bad image" were said by one each
    assert pair.kappa == pytest.approx((0.5 - by_chance) / (1 - by_chance))
    assert found.images == 4
    shares = np.array([3, 3, 1, 1]) / 8
    assert found.fleiss == pytest.approx((0.5 - (shares**2).sum()) / (1 - (shares**2).sum()))
    counts = [tuple(vars(one).values()) for one in found.readers]
    assert counts == [("anna", 4, 1, 0, 0, 4, 2), ("ben", 4, 0, 1, 1, 4, 2), ("carl", 0, 0, 0, 0, 0, 0)]
