"""The silhouette on squared distances: linear in the rows, and equal to comparing every pair."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples

from scanloop.embedding import blocks as blocks_module
from scanloop.triage.silhouette import squared_silhouette


def brute(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pair by pair, from the definition."""
    squares = ((points[:, None].astype(np.float64) - points) ** 2).sum(axis=2)
    scores = np.zeros(len(points))
    for row, own in enumerate(labels):
        members = np.flatnonzero((labels == own) & (np.arange(len(labels)) != row))
        others = [squares[row, labels == other].mean() for other in set(labels.tolist()) - {own}]
        if len(members) and others and max(inside := squares[row, members].mean(), min(others)) > 0:
            scores[row] = (min(others) - inside) / max(inside, min(others))
    return scores


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 5), st.floats(0, 1e4), st.integers(0, 999))
def test_it_equals_comparing_every_pair_wherever_the_points_lie(
    n: int, k: int, d: int, offset: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, k, n)
    points = (draw.normal(size=(n, d)) + draw.normal(size=(k, d))[labels] + offset).astype(np.float32)
    np.testing.assert_allclose(squared_silhouette(points, labels, k), brute(points, labels), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_equals_scikit_learns_on_squared_distances_over_many_blocks(dtype: type) -> None:
    draw = np.random.default_rng(0)
    rows = 2 * blocks_module.BLOCK_ROWS + 7
    labels = draw.integers(0, 4, rows)
    points = (draw.normal(size=(rows, 8)) + 2 * np.eye(4, 8)[labels]).astype(dtype)
    expected = silhouette_samples(points.astype(np.float64), labels, metric="sqeuclidean")
    np.testing.assert_allclose(squared_silhouette(points, labels, 4), expected, atol=1e-9)


def test_it_is_not_the_usual_silhouette_but_larger_where_clusters_are_apart() -> None:
    draw = np.random.default_rng(1)
    labels = np.repeat([0, 1], 50)
    points = draw.normal(size=(100, 3)) + 6 * np.eye(2, 3)[labels]
    usual = silhouette_samples(points, labels).mean()
    assert squared_silhouette(points, labels, 2).mean() > usual + 0.1


def test_a_row_alone_equal_points_one_cluster_and_empty_clusters_give_zeros_and_no_warning() -> None:
    points = np.array([[0.1, 0.2], [3.0, 0], [3.1, 0.3]])
    assert squared_silhouette(points, np.array([0, 1, 1]), 2)[0] == 0
    np.testing.assert_array_equal(squared_silhouette(np.full((9, 3), 0.1), np.arange(9) % 2, 2), 0)
    np.testing.assert_array_equal(squared_silhouette(points, np.ones(3, dtype=int), 4), 0)
    assert squared_silhouette(np.empty((0, 2)), np.empty(0, dtype=int), 2).shape == (0,)


def test_the_bits_do_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    points, labels = draw.normal(size=(5000, 16)), draw.integers(0, 3, 5000)
    several = squared_silhouette(points, labels, 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    np.testing.assert_array_equal(squared_silhouette(points, labels, 3), several)
