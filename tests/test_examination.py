"""What evaluate looks at beside the metrics, on real bundles of a network that reads brightness."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from brightness import CLASSES, draw_slices, new_embeddings, new_run, seal
from sklearn.metrics import accuracy_score

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.bundle.read import read_bundle, read_learnt
from scanloop.config import EvaluateConfig
from scanloop.evaluation.alterations import ALTERATIONS
from scanloop.steps.evaluate import evaluate

CONFIG = EvaluateConfig.model_validate({"resamples": 100, "seed": 1, "subgroups": {"min_groups": 3}})


@pytest.fixture(scope="module", params=[True, False], ids=["test", "folds"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("run")
    inputs = new_run(folder, test=request.param)
    rows = read_table(inputs["catalog"], "manifest")
    clusters = pd.DataFrame({"slice_id": rows["slice_id"], "cluster": np.arange(60) // 2 % 2, "x": 0.0, "y": 0.0})
    write_table(folder / "triage", "clusters.parquet", clusters)
    inputs |= {
        "embeddings": new_embeddings(folder / "embeddings", inputs["catalog"]),
        "triage": seal(folder / "triage"),
    }
    evaluate(CONFIG, **inputs, output=folder / "evaluation")
    return inputs | {"evaluation": folder / "evaluation"}


def has_test(run: dict[str, Path]) -> bool:
    return read_json(run["evaluation"] / "metrics.json")["holdout"]["kind"] == "test"


def test_alterations_are_judged_by_labels_only_where_the_model_never_saw_them(run: dict[str, Path]) -> None:
    found = read_json(run["evaluation"] / "robustness.json")
    model, images = read_bundle(run["bundle"]), draw_slices(60)[0]
    manifest = read_table(run["catalog"], "manifest")
    if has_test(run):
        rows, basis = range(20), "test"
    else:
        learnt = set(read_learnt(run["bundle"])["slice_id"])
        rows, basis = [row for row in range(60) if manifest["slice_id"][row] not in learnt], "unseen"
    assert (found["basis"], found["images"]) == (basis, len(rows))
    assert len(found["alterations"]) == len(ALTERATIONS)
    before = model.predict([images[row] for row in rows]).argmax(axis=1)
    labels = [CLASSES.index(draw_slices(60)[1][row]) for row in rows]
    for one, row in zip(ALTERATIONS, found["alterations"], strict=True):
        altered = [one(images[place], manifest["slice_id"][place], 1) for place in rows]
        after = model.predict(altered).argmax(axis=1)
        assert row["same_answer"]["value"] == pytest.approx(np.mean(before == after))
        if basis == "test":
            change = accuracy_score(labels, after) - accuracy_score(labels, before)
            assert row["changes"]["accuracy"]["value"] == pytest.approx(change)
        else:
            assert row["changes"] == {}


def test_parts_of_the_holdout_are_measured_by_brightness_and_cluster(run: dict[str, Path]) -> None:
    found = read_json(run["evaluation"] / "subgroups.json")["strata"]
    size = read_json(run["evaluation"] / "metrics.json")["holdout"]["images"]
    assert set(found) == {"brightness", "cluster"}
    for stratum in found.values():
        shown = sum(part["images"] for part in stratum["parts"].values())
        assert shown + stratum["hidden"]["images"] + stratum["unknown"] == size
    groups = [part["groups"] for part in found["cluster"]["parts"].values()]
    assert sum(groups) == size // 2


def test_the_curve_learns_from_labels_known_from_the_start_and_is_judged_elsewhere(run: dict[str, Path]) -> None:
    found = read_json(run["evaluation"] / "learning_curve.json")
    judged = 20 if has_test(run) else 30
    assert found["labelled"] == (10 if has_test(run) else 30)
    assert found["points"], found
    assert {point["macro_f1"]["n"] for point in found["points"]} == {judged}
    assert found["points"][-1]["groups"] <= found["labelled"] / 2


def test_the_map_holds_frozen_and_fine_tuned_features_of_the_same_images(run: dict[str, Path]) -> None:
    about, points = read_json(run["evaluation"] / "map.json"), read_table(run["evaluation"], "map.parquet")
    assert set(points["features"]) == {"frozen", "fine-tuned"}
    frozen, tuned = (set(points.loc[points["features"] == name, "slice_id"]) for name in ("frozen", "fine-tuned"))
    assert frozen == tuned
    assert len(frozen) == about["images"] == 60
    assert about["holdout_learnt_from"] is not has_test(run)
    for facts in about["features"].values():
        assert 0 <= facts["neighbour_agreement"]["value"] <= 1


def test_what_is_switched_off_says_so_and_still_leaves_its_file(run: dict[str, Path], tmp_path: Path) -> None:
    off = {"robustness": {"slices": 0}, "map": {"slices": 0}, "learning_curve": {"draws": 0}}
    given = {name: path for name, path in run.items() if name != "evaluation"}
    evaluate(CONFIG.model_validate({"resamples": 100} | off), **given, output=tmp_path / "evaluation")
    for file in ("robustness.json", "map.json", "learning_curve.json"):
        assert "left out" in read_json(tmp_path / "evaluation" / file)["reason"]
    assert read_table(tmp_path / "evaluation", "map.parquet").empty


def test_a_model_that_keeps_its_features_has_one_map(run: dict[str, Path], tmp_path: Path) -> None:
    kept = shutil.copytree(run["bundle"], tmp_path / "bundle")
    write_json(kept / "bundle.json", read_json(kept / "bundle.json") | {"training": {"stage": "frozen features"}})
    only = CONFIG.model_validate({"resamples": 100, "robustness": {"slices": 0}, "learning_curve": {"draws": 0}})
    given = {name: path for name, path in run.items() if name != "evaluation"}
    evaluate(only, **(given | {"bundle": kept}), output=tmp_path / "evaluation")
    assert list(read_json(tmp_path / "evaluation" / "map.json")["features"]) == ["frozen"]
    assert set(read_table(tmp_path / "evaluation", "map.parquet")["features"]) == {"frozen"}
