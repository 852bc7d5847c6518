"""When a bundle abstains: strange images, unsure classes; and the exemplars and points that it brings."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom
from tiny_bundle import CLASSES, draw_slices, new_bundle, new_facts, reseal

from scanloop.artifacts import read_json, write_bytes, write_json
from scanloop.bundle.abstention import Abstention, Familiar, abstention_from, fit_abstention, no_abstention
from scanloop.bundle.arrays import from_npz, to_npz
from scanloop.bundle.decisions import decide
from scanloop.bundle.engines.engine import Outputs
from scanloop.bundle.exemplars import Exemplars, exemplars_from, new_exemplars, no_exemplars
from scanloop.bundle.points import OperatingPoints, argmax_only, points_from
from scanloop.bundle.read import FROM_VERSION_2, read_bundle
from scanloop.calibration.conformal import Conformal, no_conformal
from scanloop.calibration.strangeness import NEIGHBOURS, conformal_threshold, to_nearest, unit_rows
from scanloop.errors import BundleError

SURE = Conformal(0.1, (0.3, 0.4), (50, 50), True, "")
NEAR = np.array([[1.0, 0.0, 0.0]])


def cloud(n: int, seed: int, spread: float = 0.1) -> np.ndarray:
    """Vectors around one direction."""
    return NEAR + spread * np.random.default_rng(seed).normal(size=(n, 3))


def rule(n: int = 200, share: float = 0.1, least: float | None = None) -> Abstention:
    vectors = unit_rows(cloud(n, 0)).astype(np.float16)
    ids = np.array([f"slice {row:03d}" for row in range(n)])
    return fit_abstention(Familiar(ids, vectors, np.arange(n) % 2 == 0), share, least)


def test_strangeness_is_the_cosine_distance_to_the_fifth_nearest_familiar_image() -> None:
    familiar, images = cloud(40, 1), cloud(7, 2, spread=2.0)
    expected = np.sort(cdist(images, familiar, "cosine"), axis=1)[:, NEIGHBOURS - 1]
    np.testing.assert_allclose(to_nearest(unit_rows(images), unit_rows(familiar)), expected, atol=1e-6)
    few = to_nearest(unit_rows(images), unit_rows(familiar[:2]))
    np.testing.assert_allclose(few, cdist(images, familiar[:2], "cosine").max(axis=1), atol=1e-6)
    assert np.isinf(to_nearest(unit_rows(images), unit_rows(familiar[:0]))).all()


def test_no_more_further_images_are_strange_than_promised_in_95_of_100_draws_of_the_calibration() -> None:
    thresholds = [conformal_threshold(np.random.default_rng(seed).exponential(size=100), 0.1) for seed in range(2000)]
    beyond = np.exp(-np.array(thresholds))  # the exact share of further images above each
    exceeded = binom.cdf(4, 100, 0.1)  # 0.024; five of a hundred scores above would exceed it too often, by 0.058
    assert (beyond > 0.1).mean() == pytest.approx(exceeded, abs=0.012)
    assert beyond.mean() == pytest.approx(5 / 101, abs=0.003)
    assert conformal_threshold(np.arange(18.0), 0.05) == math.inf  # 1 / 0.05 - 1 = 19 are the least
    assert [conformal_threshold(np.arange(float(n)), 0.05) for n in (19, 58, 59, 100)] == [18, 57, 58, 98]


def test_a_foreign_image_is_strange_whatever_its_probabilities_say_and_numbers_that_are_none_are_strange() -> None:
    sure = np.array([[0.99, 0.01]] * 4)
    images = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [np.nan, 0, 0]])
    strangeness = rule().strangeness(images)
    assert rule().reasons(sure, strangeness, SURE) == [None, *["out_of_distribution"] * 3]
    assert rule().reasons(sure, None, SURE) == [None] * 4
    assert rule(n=10).reasons(sure, strangeness, SURE) == [None] * 4  # five that calibrate promise nothing
    assert rule().reasons(np.empty((0, 2)), rule().strangeness(np.empty((0, 3))), SURE) == []


def test_an_image_is_unsure_where_the_labels_at_hand_do_not_rule_another_class_out() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.35, 0.65], [0.25, 0.75]])
    near = rule().strangeness(np.repeat(NEAR, 4, axis=0))
    assert rule().reasons(probabilities, near, SURE) == [None, "low_confidence", "low_confidence", None]
    assert rule().reasons(probabilities, near, no_conformal(2)) == [None] * 4
    by_number = rule(least=0.7).reasons(probabilities, near, SURE)
    assert by_number == [None, "low_confidence", "low_confidence", None]
    assert rule(least=0.62).reasons(probabilities, near, SURE) == [None, "low_confidence", None, None]
    assert no_abstention().reasons(probabilities, near, SURE) == [None] * 4


def test_a_rule_survives_its_files_and_without_some_images_is_that_of_the_others() -> None:
    whole = rule()
    again = abstention_from(whole.as_json(), whole.familiar.to_npz())
    images = cloud(50, 3, spread=0.5)
    np.testing.assert_array_equal(again.strangeness(images), whole.strangeness(images))
    assert again.threshold == whole.threshold
    gone = set(whole.familiar.slice_ids[:150].tolist())
    left = whole.without(gone)
    kept = Familiar(whole.familiar.slice_ids[150:], whole.familiar.vectors[150:], whole.familiar.reference[150:])
    assert left.threshold == fit_abstention(kept, 0.1, None).threshold != whole.threshold
    assert not gone & set(left.familiar.slice_ids)
    assert whole.without(set(whole.familiar.slice_ids)).threshold == math.inf


@pytest.mark.parametrize("change", [{"threshold": "far"}, {"strange_share": 2}, {"guarantee": None}, {}])
def test_a_rule_that_is_none_is_refused(change: dict[str, object]) -> None:
    stored = rule().as_json() | change
    if not change:
        del stored["threshold"]
    elif change == {"guarantee": None}:
        del stored["guarantee"]
    with pytest.raises(BundleError, match=r"abstention\.json"):
        abstention_from(stored, rule().familiar.to_npz())


def test_the_nearest_exemplars_are_those_of_a_plain_search() -> None:
    vectors, images = cloud(60, 4, spread=1.0), cloud(9, 5, spread=1.0)
    ids = [f"id {row:02d}" for row in np.random.default_rng(0).permutation(60)]
    exemplars = exemplars_from(new_exemplars(ids, np.arange(60) % 3, vectors).to_npz())
    found, labels, distances = exemplars.nearest(images, 4)
    plain = cdist(images, vectors, "cosine")
    order = np.argsort(plain, axis=1)[:, :4]
    assert found.tolist() == [[ids[row] for row in rows] for rows in order]
    assert labels.tolist() == (order % 3).tolist()
    np.testing.assert_allclose(distances, np.take_along_axis(plain, order, axis=1), atol=1e-3)  # float16 vectors
    assert exemplars.nearest(images, 99)[0].shape == (9, 60)
    assert not set(ids[:10]) & set(exemplars.without(ids[:10]).slice_ids)
    assert [one.shape for one in no_exemplars().nearest(images, 3)] == [(9, 0)] * 3


def test_arrays_need_no_pickle_and_equal_ones_are_equal_bytes() -> None:
    assert (
        new_exemplars(["a", "b"], np.array([0, 1]), NEAR.repeat(2, 0)).to_npz()
        == new_exemplars(["b", "a"], np.array([1, 0]), NEAR.repeat(2, 0)).to_npz()
    )
    with pytest.raises(ValueError, match="allow_pickle"):
        from_npz(to_npz(slice_ids=np.array([{"a": 1}], dtype=object)), {"slice_ids": "U"})
    for arrays in ({"labels": np.zeros(2)}, {"slice_ids": np.zeros(2)}):
        with pytest.raises(BundleError, match="array"):
            exemplars_from(to_npz(**arrays))
    with pytest.raises(BundleError, match="id, a label and a vector"):
        Exemplars(np.array(["a"]), np.array([0, 1]), np.zeros((2, 3), np.float16))


def test_a_label_is_that_of_the_operating_point_asked_for() -> None:
    points = OperatingPoints({"argmax": None, "tpr 0.95": 0.2, "fpr 0.05": 0.8}, "tpr 0.95", 0, 99)
    probabilities = np.array([[0.1, 0.9], [0.3, 0.7], [0.7, 0.3], [0.85, 0.15]])
    assert points.labels(probabilities).tolist() == [1, 0, 0, 0]
    assert points.labels(probabilities, "argmax").tolist() == [1, 1, 0, 0]
    assert points.labels(probabilities, "fpr 0.05").tolist() == [1, 1, 1, 0]
    assert points_from(points.as_json(), 2) == points
    assert argmax_only(1).labels(np.array([[0.2, 0.5, 0.3]])).tolist() == [1]
    with pytest.raises(BundleError, match=r"tpr 0\.5"):
        points.labels(probabilities, "tpr 0.5")
    for wrong in ({"default": "tpr 0.5"}, {"positive": 2}, {"points": []}, {"points": [{"name": "argmax"}]}):
        with pytest.raises(BundleError):
            points_from(points.as_json() | wrong, 2)
    with pytest.raises(BundleError, match="3 classes"):
        points_from(points.as_json(), 3)


def test_a_bundle_comes_back_with_all_that_it_says_beside_probabilities(tmp_path: Path) -> None:
    facts = new_facts()
    bundle = read_bundle(new_bundle(tmp_path, facts=facts))
    assert bundle.points == facts.points
    assert bundle.about["gates"] == facts.gates
    assert bundle.about["schema_version"] == 2
    assert bundle.abstention.threshold == facts.abstention.threshold < math.inf
    assert bundle.exemplars.slice_ids.tolist() == facts.exemplars.slice_ids.tolist()
    outputs = bundle.engine.run_inputs(np.zeros((3, 3, 32, 32), np.float32))
    assert outputs.embeddings is not None
    assert (outputs.logits.shape, outputs.embeddings.shape) == ((3, 2), (3, 8))


def test_one_call_decides_on_a_batch_and_an_image_is_decided_on_as_it_is_alone(tmp_path: Path) -> None:
    bundle = read_bundle(new_bundle(tmp_path))
    images = [*draw_slices(12, seed=3), np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)]
    outputs = bundle.engine.run_inputs(bundle.preprocess(images))
    logits, embeddings = outputs.logits, outputs.embeddings
    assert embeddings is not None
    whole = decide(bundle, outputs, point="tpr 0.95")
    np.testing.assert_allclose(whole.probabilities, bundle.predict(images), atol=1e-6)
    assert whole.probabilities.dtype == np.float64
    assert whole.labels.tolist() == np.where(whole.probabilities[:, 0] >= 0.4, 0, 1).tolist()
    assert whole.strangeness is not None
    assert {"out_of_distribution", None} <= set(whole.reasons)
    for row in range(13):
        alone = decide(bundle, Outputs(logits[[row]], embeddings[[row]]), point="tpr 0.95")
        assert alone.reasons == [whole.reasons[row]]
        assert alone.members[0].tolist() == whole.members[row].tolist()
    blind = decide(bundle, Outputs(logits, None))
    assert blind.strangeness is None
    assert "out_of_distribution" not in blind.reasons
    with pytest.raises(BundleError, match="no operating point"):
        decide(bundle, outputs, point="tpr 0.5")


def test_a_bundle_of_version_1_is_read_as_one_that_abstains_from_nothing(tmp_path: Path) -> None:
    new_bundle(tmp_path)
    seal = read_json(tmp_path / "bundle.json")
    for name in FROM_VERSION_2:
        (tmp_path / name).unlink()
        del seal["files"][name]
    for version in ({"schema_version": 1}, {}):
        old = {key: value for key, value in seal.items() if key not in ("schema_version", "gates")} | version
        (tmp_path / "bundle.json").write_text(json.dumps(old))
        bundle = read_bundle(tmp_path)
        decided = decide(bundle, Outputs(np.array([[0.0, 0.1]], np.float32), np.zeros((1, 8), np.float32)))
        assert (decided.reasons, decided.labels.tolist()) == ([None], [1])
        assert decided.strangeness is None
        assert not len(bundle.exemplars.slice_ids)
        assert "gates" not in bundle.about
        assert CLASSES[bundle.points.positive] == "cancer"
    write_json(tmp_path / "bundle.json", seal)
    with pytest.raises(BundleError, match=r"abstention\.json"):  # one of version 2 must have them
        read_bundle(tmp_path)


def test_a_bundle_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    new_bundle(tmp_path)
    write_json(tmp_path / "bundle.json", read_json(tmp_path / "bundle.json") | {"schema_version": 3})
    with pytest.raises(BundleError, match="install the version that wrote it"):
        read_bundle(tmp_path)


def test_labels_of_exemplars_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    new_bundle(tmp_path)
    wrong = new_exemplars(["a"], np.array([2]), np.ones((1, 8)))
    write_bytes(tmp_path / "exemplars.npz", wrong.to_npz())
    reseal(tmp_path)
    with pytest.raises(BundleError, match="exemplars"):
        read_bundle(tmp_path)
