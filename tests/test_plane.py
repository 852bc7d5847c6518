"""The map of features, and the features out of a network's ONNX file."""

import sys

import numpy as np
import pytest
import torch
from tiny_bundle import PREPROCESS, TinyNetwork, draw_slices

from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.export import to_onnx
from scanloop.errors import ConfigError
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.plane import neighbour_agreement, to_plane


def clouds(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    return np.random.default_rng(0).normal(size=(n, 12)) + 8 * labels[:, None], labels


def test_clouds_that_lie_apart_lie_apart_on_the_map_and_the_map_is_the_same_twice() -> None:
    vectors, labels = clouds()
    points = to_plane(vectors.astype(np.float16), "tsne", 3)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(points, to_plane(vectors.astype(np.float16), "tsne", 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.where(np.eye(60), np.inf, 0)
    assert (labels[distances.argmin(axis=1)] == labels).all()


@pytest.mark.integration  # numba compiles for half a minute
def test_umap_keeps_clouds_apart_and_is_the_same_twice() -> None:
    pytest.importorskip("umap")
    vectors, labels = clouds()
    points = to_plane(vectors, "umap", 3)
    np.testing.assert_array_equal(points, to_plane(vectors, "umap", 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.where(np.eye(60), np.inf, 0)
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_umap_that_is_not_installed_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"scanloop\[umap\]"):
        to_plane(clouds()[0], "umap", 0)


def test_neighbours_of_the_same_group_do_not_count() -> None:
    vectors, labels = clouds(40)
    vectors = vectors - 4  # on either side of the origin: the cosine tells them apart
    apart = neighbour_agreement(vectors, labels, np.arange(40), Resampling(100))
    assert apart is not None
    assert apart.value == 1
    twins = np.repeat(np.random.default_rng(1).normal(size=(20, 4)), 2, axis=0)
    drawn = np.random.default_rng(2).integers(0, 2, 20).repeat(2)
    groups = np.arange(40) // 2
    found = neighbour_agreement(twins, drawn, groups, Resampling(100))
    unit = twins / np.linalg.norm(twins, axis=1, keepdims=True)
    hits = []
    for row in range(40):
        others = [other for other in range(40) if groups[other] != groups[row]]
        nearest = max(others, key=lambda other: (round(float(unit[row] @ unit[other]), 9), -other))
        hits.append(drawn[nearest] == drawn[row])
    assert found is not None
    assert found.value == pytest.approx(np.mean(hits))
    assert neighbour_agreement(vectors, np.zeros(40, int), groups, Resampling(100)) is None


def test_embeddings_out_of_the_onnx_file_are_those_before_torch_s_last_layer() -> None:
    network = TinyNetwork().eval()
    inputs = PREPROCESS(draw_slices(5))
    found = OnnxEngine(to_onnx(network, PREPROCESS.input_px), PREPROCESS).run_inputs(inputs).embeddings
    with torch.inference_mode():
        expected = network.encoder(torch.from_numpy(inputs)).numpy()
    assert found is not None
    assert found.shape == (5, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5)
