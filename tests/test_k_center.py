"""k-center greedy with look-ahead: the picks of the plain loop, with far fewer distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.acquisition import k_center
from scanloop.acquisition.k_center import k_center_greedy


def plain(points: np.ndarray, covered: np.ndarray, groups: np.ndarray, count: int) -> list[int]:
    """One pick, one update of every distance, in float64."""
    wide, free, picked = points.astype(np.float64), np.ones(len(points), dtype=bool), []
    nearest = np.min([((wide - centre) ** 2).sum(axis=1) for centre in covered.astype(np.float64)], axis=0)
    while len(picked) < count and free.any():
        picked.append(int(np.where(free, nearest, -1).argmax()))
        free &= groups != groups[picked[-1]]
        nearest = np.minimum(nearest, ((wide - wide[picked[-1]]) ** 2).sum(axis=1))
    return picked


def clustered(n: int, spread: float, seed: int, d: int = 16) -> np.ndarray:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(9, d))[draw.integers(0, 9, n)] + spread * draw.normal(size=(n, d))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def covering_radius(points: np.ndarray, centres: np.ndarray) -> float:
    wide = points.astype(np.float64)
    return float(np.min([((wide - c) ** 2).sum(axis=1) for c in centres.astype(np.float64)], axis=0).max() ** 0.5)


@pytest.mark.parametrize("look_ahead", [1, 3, 40, 10_000])
@pytest.mark.parametrize("spread", [0.05, 0.5, 5.0])
def test_the_picks_are_those_of_the_plain_loop_however_far_it_looks_ahead(
    look_ahead: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k_center, "LOOK_AHEAD", look_ahead)
    monkeypatch.setattr(k_center, "CENTRES_A_BLOCK", 7)
    points, covered, groups = clustered(600, spread, 0), clustered(20, spread, 1), np.arange(600) // 2
    picked, _ = k_center_greedy(points, covered, groups, 150)
    assert picked.tolist() == plain(points, covered, groups, 150)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 999), st.integers(1, 20))
def test_copies_of_points_are_picked_last_and_the_radius_is_the_plain_loops(
    n: int, count: int, seed: int, distinct: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(k_center, "LOOK_AHEAD", 5)
        points = clustered(distinct, 1.0, seed)[np.random.default_rng(seed).integers(0, distinct, n)]
        covered, groups = clustered(3, 1.0, seed + 1), np.arange(n)
        picked, distances = k_center_greedy(points, covered, groups, count)
    expected = plain(points, covered, groups, count)
    assert len(set(picked)) == len(expected)
    assert (np.diff(distances) <= 1e-3).all(), "distances fall, but for float32's rounding near zero"
    radii = [covering_radius(points, np.concatenate([covered, points[rows]])) for rows in (picked, expected)]
    assert radii[0] == pytest.approx(radii[1], abs=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_pick_as_float32_does(dtype: type) -> None:
    points, covered = clustered(300, 0.5, 3).astype(dtype), clustered(5, 0.5, 4).astype(dtype)
    picked, distances = k_center_greedy(points, covered, np.arange(300), 40)
    single, _ = k_center_greedy(points.astype(np.float32), covered.astype(np.float32), np.arange(300), 40)
    np.testing.assert_array_equal(picked, single)
    for row, distance in zip(range(40), distances, strict=True):
        before = np.concatenate([covered, points[picked[:row]]])
        assert distance == pytest.approx(covering_radius(points[picked[row]][None], before), abs=1e-7)


def test_with_nothing_covered_the_mean_counts_for_the_first_pick_alone() -> None:
    points = np.array([[9.0, 0], [-9, 0], [0, 1], [0, 4]])
    picked, distances = k_center_greedy(points, np.empty((0, 2)), np.arange(4), 4)
    assert picked.tolist() == [0, 1, 3, 2]
    mean = points.mean(axis=0)
    np.testing.assert_allclose(distances, [np.hypot(*(points[0] - mean)), 18, np.hypot(9, 4), 3], atol=1e-9)


def test_far_fewer_rows_hear_of_a_pick_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    products = 0
    heard = k_center._Search._hear

    def counted(self: k_center._Search, rows: np.ndarray, half: np.ndarray) -> None:
        nonlocal products
        products += len(rows) * (self.made - int(self.heard[rows[0]]))
        heard(self, rows, half)

    monkeypatch.setattr(k_center._Search, "_hear", counted)
    monkeypatch.setattr(k_center, "LOOK_AHEAD", 100)
    k_center_greedy(clustered(20_000, 0.3, 5), clustered(10, 0.3, 6), np.arange(20_000), 300)
    assert products < 0.9 * 20_000 * 310, "the plain loop compares every row with every centre"
