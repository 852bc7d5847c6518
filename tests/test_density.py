"""DBSCAN on a graph of neighbours, against scikit-learn's on the points themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from scanloop.triage import density
from scanloop.triage.density import NOISE, dbscan, density_clusters, knee, nearest_neighbours


def blobs(per_cluster: int = 60, noise: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = np.repeat(np.arange(3), per_cluster)
    points = draw.normal(scale=0.4, size=(len(truth), 5)) + 9 * np.eye(3, 5)[truth]
    points = np.concatenate([points, draw.uniform(-25, 25, (noise, 5))])
    return points.astype(np.float32), np.concatenate([truth, np.full(noise, NOISE)])


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 80), st.integers(2, 8), st.floats(0.05, 3), st.integers(0, 10_000), st.booleans())
def test_it_equals_scikit_learns_where_the_graph_holds_every_neighbour(
    n: int, min_samples: int, radius: float, seed: int, doubled: bool
) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 2))
    if doubled:
        points[: n // 2] = points[n - n // 2 :]  # equal points are neighbours at distance 0
    graph = nearest_neighbours(points, points, n - 1, itself=True)
    if np.abs(graph.distances - radius).min() < 1e-9:
        return
    labels, core = dbscan(graph, radius, min_samples)
    expected = DBSCAN(eps=radius, min_samples=min_samples).fit(points)
    np.testing.assert_array_equal(labels, expected.labels_)
    np.testing.assert_array_equal(np.flatnonzero(core), expected.core_sample_indices_)


def test_the_neighbours_are_those_of_a_full_table_of_distances() -> None:
    points = np.random.default_rng(1).normal(size=(300, 7))
    table = cdist(points, points)
    np.fill_diagonal(table, np.inf)
    graph = nearest_neighbours(points, points, 9, itself=True)
    np.testing.assert_array_equal(graph.neighbours, table.argsort(axis=1)[:, :9])
    np.testing.assert_allclose(graph.distances, np.sort(table, axis=1)[:, :9], atol=1e-12)


@pytest.mark.parametrize("bend", [10, 50, 85])
def test_the_knee_is_where_two_straight_lines_meet(bend: int) -> None:
    flat = np.linspace(1, 1.2, bend)
    assert knee(np.concatenate([flat, np.linspace(2, 30, 100 - bend)])) == pytest.approx(1.2)


def test_the_radius_comes_from_the_data_and_finds_clusters_and_noise() -> None:
    points, truth = blobs()
    found = density_clusters(points, min_samples=8, neighbours=100, seed=0)
    assert found.k == 3
    assert adjusted_rand_score(truth[truth >= 0], found.labels[truth >= 0]) > 0.95
    assert (found.labels[truth == NOISE] == NOISE).mean() > 0.9
    assert found.noise_share == (found.labels == NOISE).mean()
    expected = DBSCAN(eps=found.epsilon, min_samples=8).fit_predict(points.astype(np.float64))
    assert (expected != found.labels).mean() < 0.01  # the pair at the radius itself may fall either way


def test_never_is_all_noise_however_sparse_the_points() -> None:
    points = np.random.default_rng(3).uniform(-1e3, 1e3, (200, 40)).astype(np.float32)
    found = density_clusters(points, min_samples=5, neighbours=20, seed=0)
    assert found.k >= 1
    assert found.noise_share < 1
    assert density_clusters(np.ones((20, 3), np.float32), 5, 10, seed=0).noise_share == 0


def test_rows_beyond_the_sample_get_the_cluster_of_the_nearest_core(monkeypatch: pytest.MonkeyPatch) -> None:
    points, truth = blobs(per_cluster=300, noise=60)
    monkeypatch.setattr(density, "MOST_FITTED", 400)
    found = density_clusters(points, min_samples=8, neighbours=64, seed=0)
    assert found.k == 3
    kept = truth >= 0
    assert adjusted_rand_score(truth[kept], found.labels[kept]) > 0.9
    assert (found.labels[~kept] == NOISE).mean() > 0.9
