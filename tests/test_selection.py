"""A selection is its policy's, without near-duplicates, with controls drawn at random beside."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from scanloop.acquisition.entropy import entropy
from scanloop.acquisition.policy import POLICIES, select
from scanloop.acquisition.situation import Situation


def situation(n: int = 40, seed: int = 0) -> Situation:
    """Pairs of images in groups, with a head's word on them and six labelled ones."""
    draw = np.random.default_rng(seed)
    vectors, weights = draw.normal(size=(n, 4)), draw.normal(size=(4, 2))

    def answer(values: np.ndarray) -> np.ndarray:
        scores = np.exp(values.astype(np.float64) @ weights)
        return scores / scores.sum(axis=1, keepdims=True)

    labelled = draw.normal(size=(6, 4))
    labelled = (labelled / np.linalg.norm(labelled, axis=1, keepdims=True)).astype(np.float32)
    groups = np.array([f"g{row // 2}" for row in range(n)])
    return Situation(
        answer(vectors),
        vectors,
        groups,
        np.ones(n, dtype=bool),
        labelled,
        np.array([0, 0, 0, 1, 1, 1]),
        answer,
        4,
        seed,
    )


def test_the_selection_is_the_policys_with_controls_spread_over_it() -> None:
    pool = situation()
    chosen = select(pool, 10, "margin", control_share=0.2, near=2)
    assert np.flatnonzero(chosen.control).tolist() == [2, 7], "in the middle of each half"
    margins = np.abs(pool.probabilities[:, 0] - pool.probabilities[:, 1])
    others = [row for row in np.argsort(margins) if pool.groups[row] not in pool.groups[chosen.rows[chosen.control]]]
    expected = pd.Series(others).groupby(pool.groups[others], sort=False).first()[:8].tolist()
    assert chosen.rows[~chosen.control].tolist() == expected
    np.testing.assert_allclose(chosen.uncertainty, entropy(pool.probabilities)[chosen.rows])
    assert len(set(pool.groups[chosen.rows])) == len(chosen.rows) == 10


def test_controls_come_from_the_whole_pool_alike() -> None:
    drawn = [select(replace(situation(), seed=seed), 20, "margin", 0.5, 2) for seed in range(300)]
    times = np.bincount(np.concatenate([one.rows[one.control] for one in drawn]), minlength=40)
    assert scipy.stats.chisquare(times).pvalue > 0.001


def test_a_random_policy_needs_no_controls() -> None:
    assert not select(situation(), 10, "random", 0.5, 2).control.any()


@pytest.mark.parametrize("name", POLICIES)
def test_no_image_nearly_the_same_as_another_or_a_labelled_one_is_asked_for(name: str) -> None:
    pool = situation()
    vectors = pool.vectors.copy()
    vectors[20:30] = vectors[:10] * 3
    vectors[30] = pool.labelled[2] * 5
    pool = replace(pool, vectors=vectors, groups=np.arange(40))
    chosen = select(pool, 40, name, 0.0, near=0.999)
    assert 30 not in chosen.rows
    assert all((row in chosen.rows) != (row + 20 in chosen.rows) for row in range(10)), "one of each two"
    assert (len(chosen.rows), chosen.collapsed) == (29, 11)
    assert len(select(pool, 40, name, 0.0, near=2).rows) == 40


@pytest.mark.parametrize("name", POLICIES)
def test_the_length_of_a_vector_does_not_matter_to_where_images_lie(name: str) -> None:
    pool = situation()
    longer = replace(pool, vectors=pool.vectors * np.geomspace(0.1, 9, 40)[:, None])
    if name != "dropquery":  # asks the head, which sees lengths
        np.testing.assert_array_equal(select(pool, 8, name, 0, 2).rows, select(longer, 8, name, 0, 2).rows)
