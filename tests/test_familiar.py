"""What a trained model is familiar with: the images in its bundle, in its own embedding, and its thresholds."""

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain
from stored import stored_slices

from scanloop.artifacts import read_json, read_table
from scanloop.bundle.abstention import LEARNT, UNSEEN
from scanloop.bundle.points import OperatingPoints
from scanloop.bundle.read import read_bundle
from scanloop.calibration.strangeness import unit_rows
from scanloop.errors import ConfigError
from scanloop.learning.dataset import Known
from scanloop.learning.familiar import draw_exemplars, draw_familiar
from scanloop.learning.points import check_default_point, choose_points
from scanloop.sections.serving import ServedPointsConfig


def rows(groups: int, size: int = 2) -> pd.DataFrame:
    count = groups * size
    ids = [f"slice {row:04d}" for row in range(count)]
    return pd.DataFrame({"slice_id": ids, "group_id": [f"g{row // size}" for row in range(count)]})


def group_of(slice_ids: np.ndarray) -> set[int]:
    return {int(one.split()[1]) // 2 for one in slice_ids}


def test_half_of_the_groups_calibrate_and_the_model_learnt_from_none_of_these() -> None:
    train = rows(200)
    learnt = train["slice_id"][:120].to_numpy()  # the first sixty groups
    drawn = draw_familiar(train, learnt, 100, 0.05, seed=1)
    assert len(drawn.slice_ids) == len(group_of(drawn.slice_ids)) == 100
    assert drawn.unseen
    assert int((~drawn.reference).sum()) == 50
    assert min(group_of(drawn.slice_ids[~drawn.reference])) >= 60
    assert len({one % 2 for one in (int(name.split()[1]) for name in drawn.slice_ids)}) == 2  # any of a group's images
    shuffled = draw_familiar(train.sample(frac=1, random_state=3), learnt[::-1], 100, 0.05, seed=1)
    assert shuffled.slice_ids.tolist() == drawn.slice_ids.tolist()
    assert shuffled.reference.tolist() == drawn.reference.tolist()
    assert draw_familiar(train, learnt, 100, 0.05, seed=2).slice_ids.tolist() != drawn.slice_ids.tolist()


def test_where_nearly_everything_was_learnt_from_half_of_all_calibrate_and_it_is_said() -> None:
    train = rows(60)
    drawn = draw_familiar(train, train["slice_id"][:84].to_numpy(), 100, 0.05, seed=1)  # eighteen groups are free
    assert not drawn.unseen
    assert int((~drawn.reference).sum()) == 30
    assert draw_familiar(train, train["slice_id"][:80].to_numpy(), 100, 0.05, seed=1).unseen  # twenty are enough


def test_exemplars_are_drawn_class_by_class_in_turn() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    ids = np.array([str(row) for row in range(100)], dtype=object)
    known = Known(ids, np.zeros((100, 2), np.float16), labels, ids, np.ones(100, bool))
    assert draw_exemplars(known, 200, 0).tolist() == list(range(100))
    assert np.bincount(labels[draw_exemplars(known, 9, 0)]).tolist() == [4, 3, 2]
    assert draw_exemplars(known, 9, 0).tolist() != draw_exemplars(known, 9, 1).tolist()


def test_thresholds_reach_their_aims_out_of_fold_and_are_for_two_classes_alone() -> None:
    draw = np.random.default_rng(0)
    positive = draw.random(500) < 0.4
    scores = np.clip(draw.normal(np.where(positive, 0.65, 0.35), 0.2), 0, 1)
    config = ServedPointsConfig(target_tpr=(0.9,), target_fpr=(0.1,), default="tpr 0.9")
    points = choose_points(scores, positive, 1, 2, config)
    both = np.stack([1 - scores, scores], axis=1)
    assert 0.9 <= (points.labels(both) == 1)[positive].mean() < 0.92
    assert 0.08 < (points.labels(both, "fpr 0.1") == 1)[~positive].mean() <= 0.1
    plain = ServedPointsConfig()
    assert choose_points(scores, positive, 1, 3, plain) == OperatingPoints({"argmax": None}, "argmax", 1, 500)
    check_default_point(plain, "abc")
    with pytest.raises(ConfigError, match="set it to argmax"):
        check_default_point(config, "abc")
    with pytest.raises(ValueError, match=r"none of the points: argmax, tpr 0\.95"):
        ServedPointsConfig(default="tpr 0.9")


@pytest.mark.parametrize("name", ["baseline", "bundle"])
def test_a_bundle_compares_with_its_labelled_images_in_the_embedding_that_it_serves(name: str, chain: Chain) -> None:
    bundle = read_bundle(chain[name])
    manifest = read_table(chain["catalog"], "manifest")
    learnt = read_table(chain[name], "learnt.parquet")
    labelled = learnt.loc[learnt["source"] == "labelled", "slice_id"]
    assert set(bundle.exemplars.slice_ids) == set(labelled)
    images = stored_slices(chain["catalog"], manifest)
    for held in (bundle.exemplars, bundle.abstention.familiar):
        inputs = bundle.preprocess([images[one] for one in held.slice_ids])
        embeddings = bundle.engine.run_inputs(inputs).embeddings
        np.testing.assert_allclose(held.vectors, unit_rows(embeddings), atol=2e-3)  # float16 twice
    given = manifest.set_index("slice_id")["label"].dropna()
    for slice_id, label in zip(bundle.exemplars.slice_ids, bundle.exemplars.labels, strict=True):
        assert bundle.classes[label] == given.get(slice_id, bundle.classes[label])
    found = bundle.exemplars.nearest(bundle.exemplars.vectors, 1)
    np.testing.assert_allclose(found[2], 0, atol=1e-3)


@pytest.mark.parametrize("name", ["baseline", "bundle"])
def test_what_calibrates_was_not_learnt_from_and_nothing_familiar_is_held_out(name: str, chain: Chain) -> None:
    rule = read_bundle(chain[name]).abstention
    manifest = read_table(chain["catalog"], "manifest").set_index("slice_id")
    learnt = read_table(chain[name], "learnt.parquet")
    groups = manifest.loc[rule.familiar.slice_ids, "group_id"]
    assert groups.is_unique
    assert (manifest.loc[rule.familiar.slice_ids, "split"] == "train").all()
    calibrates = set(groups[~rule.familiar.reference])
    assert bool(calibrates & set(learnt["group_id"])) == (rule.guarantee == LEARNT)
    assert rule.guarantee in (UNSEEN, LEARNT)
    assert np.isfinite(rule.threshold)


def test_the_thresholds_are_those_that_evaluate_tells(chain: Chain) -> None:
    metrics = read_json(chain["evaluation"] / "metrics.json")
    told = {f"{one['target']} {one['aimed_at']:g}": one["threshold"] for one in metrics["operating_points"]}
    points = read_bundle(chain["bundle"]).points
    assert told == {name: threshold for name, threshold in points.thresholds.items() if threshold is not None}
    table = read_table(chain["bundle"], "out_of_fold.parquet")
    manifest = read_table(chain["catalog"], "manifest")
    assert points.chosen_n == table["slice_id"].nunique()
    assert not set(table["slice_id"]) & set(manifest.loc[manifest["split"] != "train", "slice_id"])
    assert PLANS["bundle"][1].operating_points.default == points.default == "argmax"
