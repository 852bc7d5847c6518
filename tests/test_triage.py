"""Triage: projection, clusters, and what they say about the labels."""

from pathlib import Path

import numpy as np
import pytest
from chain import PLANS, Chain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from scanloop.artifacts import KINDS, read_json, read_table
from scanloop.embedding.cache import read_embeddings
from scanloop.steps.triage import triage
from scanloop.triage.agreement import agreement
from scanloop.triage.clusters import cluster
from scanloop.triage.projection import fit_projection


def vectors(n: int = 60, d: int = 12, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, d)) * np.linspace(3, 0.1, d) + 5).astype(np.float16)


def blobs(per_cluster: int = 30, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(2)
    truth = np.repeat(np.arange(k), per_cluster)
    return draw.normal(size=(len(truth), 4)) + 12 * np.eye(k, 4)[truth], truth


@pytest.mark.parametrize("shape", [(60, 12), (8, 30), (2, 5)])
@pytest.mark.parametrize("variance", [0.5, 0.9, 1.0])
def test_components_are_those_of_a_singular_value_decomposition_up_to_sign(
    shape: tuple[int, int], variance: float
) -> None:
    values = vectors(*shape).astype(np.float64)
    _, singular, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    projection = fit_projection([vectors(*shape)], variance)
    kept = len(projection.components)
    shares = singular**2 / (singular**2).sum()
    np.testing.assert_allclose(projection.explained, shares[:kept], rtol=0, atol=1e-9)
    np.testing.assert_allclose(projection.mean, values.mean(axis=0), atol=1e-9)
    for ours, theirs, share in zip(projection.components, right, shares, strict=False):
        if share > 1e-9:  # a direction without variance is any
            assert abs(ours @ theirs) == pytest.approx(1, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 40), st.integers(2, 20), st.floats(0, 1), st.integers(0, 1000))
def test_as_few_components_as_keep_the_asked_share_and_never_fewer_than_two(
    n: int, d: int, variance: float, seed: int
) -> None:
    projection = fit_projection([vectors(n, d, seed)], variance)
    kept = projection.explained
    assert kept.sum() >= variance - 1e-9
    assert len(kept) == 2 or kept[:-1].sum() < variance + 1e-9  # the last may be a rounding error
    np.testing.assert_allclose(projection.components @ projection.components.T, np.eye(len(kept)), atol=1e-9)


def test_coordinates_are_centred_and_keep_the_distances_when_all_variance_is_kept() -> None:
    points = fit_projection([vectors()], 1.0)(vectors())
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    values = vectors().astype(np.float64)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(distances, np.linalg.norm(values[:, None] - values, axis=2), atol=1e-6)


def test_separate_clusters_are_found_with_the_silhouette_of_all_rows() -> None:
    points, truth = blobs()
    found = cluster(points, range(2, 7), 5000, seed=0)
    assert found.k == 3
    assert adjusted_rand_score(truth, found.labels) == 1
    assert sorted(found.silhouette) == [2, 3, 4, 5, 6]
    assert found.silhouette[3] == pytest.approx(silhouette_score(points, truth, metric="sqeuclidean"), abs=1e-9)
    assert found.euclidean == pytest.approx(silhouette_score(points, truth), abs=1e-9)
    assert found.silhouette[3] == max(found.silhouette.values())


def test_clusters_are_the_same_bits_twice_and_on_a_sample() -> None:
    points, truth = blobs()
    first, again = (cluster(points, range(2, 5), 50, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.silhouette == again.silhouette
    assert adjusted_rand_score(truth, first.labels) == 1  # every row has a cluster, the sample only chose k


def test_no_more_clusters_than_points_and_one_where_all_points_are_equal() -> None:
    points, _ = blobs(per_cluster=1)
    assert set(cluster(points, range(2, 7), 50, seed=0).silhouette) <= {2}
    with pytest.warns(Warning, match="distinct clusters"):
        same = cluster(np.ones((20, 3)), range(2, 4), 50, seed=0)
    assert (same.k, same.silhouette, set(same.labels)) == (1, {}, {0})


def test_clusters_that_are_the_labels_follow_them() -> None:
    labels = np.arange(60) % 2
    found = agreement(labels + 5, labels, seed=0)
    assert (found.ari, found.nmi, found.labelled) == (1, pytest.approx(1), 60)
    assert found.chance < 0.2
    assert found.verdict.startswith("the clusters follow the labels")


def test_clusters_that_know_nothing_of_the_labels_are_said_to() -> None:
    draw = np.random.default_rng(0)
    passed = 0
    for trial in range(12):
        clusters, labels = draw.integers(0, 3, 50), draw.integers(0, 2, 50)
        found = agreement(clusters, labels, seed=trial)
        assert found.ari == pytest.approx(adjusted_rand_score(clusters, labels))
        assert found.nmi == pytest.approx(normalized_mutual_info_score(clusters, labels))
        passed += "show no relation" in found.verdict
    assert passed >= 9  # 95 of 100 in the long run


def test_too_few_labels_give_no_figure_and_say_so() -> None:
    found = agreement(np.zeros(9, int), np.zeros(9, int), seed=0)
    assert (found.ari, found.nmi, found.chance) == (None, None, None)
    assert "9 labelled images are too few" in found.verdict


def test_triage_places_every_training_slice_and_no_other(chain: Chain) -> None:
    manifest, table = read_table(chain["catalog"], "manifest"), read_table(chain["triage"], "clusters.parquet")
    train = manifest[manifest["split"] == "train"]
    assert table["slice_id"].tolist() == train["slice_id"].tolist()
    facts = read_json(chain["triage"] / "triage.json")
    assert facts["sizes"] == table["cluster"].value_counts().sort_index().tolist()
    assert facts["labelled"] == train["label"].notna().sum()
    known = train["label"].notna().to_numpy()
    assert facts["ari"] == pytest.approx(adjusted_rand_score(train["label"][known], table["cluster"][known]))


def test_triage_keeps_nine_tenths_of_the_variance_and_its_coordinates_can_be_computed_again(chain: Chain) -> None:
    table, stored = read_table(chain["triage"], "clusters.parquet"), np.load(chain["triage"] / "pca.npz")
    assert stored["explained"].sum() >= 0.9 > stored["explained"][:-1].sum()
    values = read_embeddings(chain["embeddings"]).of(table["slice_id"].tolist()).astype(np.float64)
    points = (values - stored["mean"]) @ stored["components"].T
    np.testing.assert_allclose(table[["x", "y"]].to_numpy(), points[:, :2], atol=1e-9)


def test_triage_gives_the_same_bytes_twice(chain: Chain, tmp_path: Path) -> None:
    summary = triage(PLANS["triage"][1], **chain.inputs("catalog", "embeddings"), output=tmp_path / "triage")
    assert summary == chain.summary("triage")
    for name in (*KINDS["triage"][:-1], "neighbours/part-000000.faiss"):
        assert (tmp_path / "triage" / name).read_bytes() == (chain["triage"] / name).read_bytes()
