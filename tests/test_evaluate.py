"""The step evaluate, on real bundles of a network that reads brightness."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brightness import CLASSES, draw_slices, new_embeddings, new_run, seal
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from scanloop.artifacts import KINDS, read_json, read_table, write_table
from scanloop.bundle.engines.engine import Outputs
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.read import read_bundle
from scanloop.config import EvaluateConfig
from scanloop.errors import ArtifactError, BundleError, LeakageError, TooFewLabelsError
from scanloop.evaluation.calibration import equal_mass_error
from scanloop.evaluation.holdout import mean_probabilities
from scanloop.steps.evaluate import evaluate
from scanloop.steps.scoring import Scorer

CONFIG = EvaluateConfig(resamples=200, seed=1)


@pytest.fixture(scope="module")
def with_test(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return new_run(tmp_path_factory.mktemp("test"), test=True)


@pytest.fixture(scope="module")
def without_test(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return new_run(tmp_path_factory.mktemp("folds"), test=False)


def direct(inputs: dict[str, Path], name: str, rows: slice) -> np.ndarray:
    """Probabilities of the model itself, without the step."""
    return read_bundle(inputs[name]).predict(draw_slices(60)[0][rows])


def test_metrics_on_the_test_split_equal_those_computed_from_the_models_alone(
    with_test: dict[str, Path], tmp_path: Path
) -> None:
    summary = evaluate(CONFIG, **with_test, output=tmp_path / "evaluation")
    metrics = read_json(tmp_path / "evaluation" / "metrics.json")
    labels = np.array([CLASSES.index(label) for label in draw_slices(60)[1][:20]])
    for arm, name in (("supervised", "baseline"), ("semi_supervised", "bundle")):
        probabilities = direct(with_test, name, slice(20))
        predicted = probabilities.argmax(axis=1)
        found = {key: entry["value"] for key, entry in metrics["arms"][arm].items()}
        assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
        assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
        assert found["auroc"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
        honest = metrics["calibration"][arm]
        assert honest["log_loss"] == pytest.approx(log_loss(labels, probabilities, labels=[0, 1]))
        assert honest["ece_equal_mass"] == pytest.approx(equal_mass_error(probabilities, labels))
        assert 0 < honest["ece_noise"] < honest["ece_noise_high"] < 1
    assert metrics["holdout"] == {
        "kind": "test", "images": 20, "groups": 10, "repeats": 1, "classes": {"cancer": 10, "normal": 10},
    }  # fmt: skip
    difference = metrics["difference"]["macro_f1"]
    both = [metrics["arms"][arm]["macro_f1"]["value"] for arm in ("semi_supervised", "supervised")]
    assert difference["value"] == pytest.approx(both[0] - both[1])
    assert (summary.holdout, summary.groups, summary.deployed_arm) == ("test", 10, "semi_supervised")
    assert summary.macro_f1 == both[0]
    assert summary.supervised_macro_f1 == both[1]
    assert summary.macro_f1_low <= summary.macro_f1 <= summary.macro_f1_high


def test_every_uri_has_a_prediction_with_its_split_and_its_fate(with_test: dict[str, Path], tmp_path: Path) -> None:
    evaluate(CONFIG, **with_test, output=tmp_path / "evaluation")
    rows = read_table(tmp_path / "evaluation", "predictions.parquet").set_index("uri")
    assert len(rows) == 61
    np.testing.assert_allclose(np.stack(rows["probabilities"][:60]), direct(with_test, "bundle", slice(60)), atol=1e-6)
    assert rows.loc["scans/copy of 40.png", "probability"] == rows.loc["scans/40.png", "probability"]
    assert rows["split"].value_counts().to_dict() == {"test": 20, "train": 12, "pool": 29}
    assert rows.loc[rows["promoted"]].index.tolist() == ["scans/31.png", "scans/32.png"]
    assert set(rows.loc[rows["given_label"].notna(), "reason"]) == {"labelled"}
    assert rows.loc["scans/50.png", ["split", "given_label", "promoted"]].tolist() == ["train", "cancer", False]
    for row in rows.itertuples():
        assert row.label == CLASSES[int(np.argmax(row.probabilities))]
        assert (row.probability, row.confidence) == (row.probabilities[0], max(row.probabilities))


def test_without_a_test_split_the_out_of_fold_predictions_measure_and_bought_labels_do_not(
    without_test: dict[str, Path], tmp_path: Path
) -> None:
    summary = evaluate(CONFIG, **without_test, output=tmp_path / "evaluation")
    metrics = read_json(tmp_path / "evaluation" / "metrics.json")
    assert metrics["holdout"] == {
        "kind": "cross_validation", "images": 30, "groups": 15, "repeats": 2, "classes": {"cancer": 15, "normal": 15},
    }  # fmt: skip
    table = read_table(without_test["bundle"], "out_of_fold.parquet")
    bought = set(read_table(without_test["labels"], "labels.parquet")["slice_id"])
    scores = []
    for _, rows in table[~table["slice_id"].isin(bought)].groupby("repeat"):
        predicted = np.where(np.stack(rows["logits"])[:, 0] > 0, "cancer", "normal")
        scores.append(f1_score(rows["label"], predicted, average="macro"))
    assert summary.macro_f1 == pytest.approx(np.mean(scores))
    predictions = read_table(tmp_path / "evaluation", "predictions.parquet").drop_duplicates("slice_id")
    held_out = predictions[predictions["split"] == "cross_validation"].set_index("slice_id")["probabilities"]
    expected = mean_probabilities(table)
    assert set(held_out.index) == set(expected.index)
    np.testing.assert_allclose(np.stack(held_out.loc[expected.index]), np.stack(expected))
    assert predictions["split"].value_counts().to_dict() == {"cross_validation": 32, "pool": 28}


def test_without_promoted_labels_the_supervised_arm_is_deployed_and_the_arms_are_one(tmp_path: Path) -> None:
    inputs = new_run(tmp_path, test=False, promoted=False)
    summary = evaluate(CONFIG, **inputs, output=tmp_path / "evaluation")
    assert summary.deployed_arm == "supervised"
    assert (summary.difference, summary.difference_low, summary.difference_high) == (0, 0, 0)
    assert summary.macro_f1 == summary.supervised_macro_f1


def test_promoted_labels_that_the_bundle_did_not_learn_from_leave_it_supervised(tmp_path: Path) -> None:
    inputs = new_run(tmp_path, test=True, promoted=True, learnt=0)
    assert read_table(inputs["pseudo_labels"], "pseudo_labels.parquet")["promoted"].any()
    assert evaluate(CONFIG, **inputs, output=tmp_path / "evaluation").deployed_arm == "supervised"


@pytest.mark.parametrize(("run", "held_out"), [("with_test", range(20)), ("without_test", range(30))])
def test_the_watch_on_drift_compares_the_head_s_own_word_on_the_hold_out_and_on_the_whole_pool(
    run: str, held_out: range, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    evaluate(CONFIG, **request.getfixturevalue(run), output=tmp_path / "evaluation")
    table = read_table(tmp_path / "evaluation", "confidence.parquet").set_index("slice_id")
    pool = [row for row in range(30, 60) if row not in (50, 51)]  # promoted ones too; those bought stand on no side
    assert len(table) == len(held_out) + len(pool)
    for side, rows in (("reference", list(held_out)), ("pool", pool)):
        found = table.loc[[hashlib.sha256(str(row).encode()).hexdigest() for row in rows]]
        assert set(found["side"]) == {side}
        assert found["confidence"].tolist() == pytest.approx([0.5 + row / 200 for row in rows])
        assert found["positive"].tolist() == [row % 3 == 0 for row in rows]


def test_two_runs_leave_the_same_bytes(with_test: dict[str, Path], tmp_path: Path) -> None:
    embeddings = new_embeddings(tmp_path / "embeddings", with_test["catalog"])
    for name in ("one", "two"):
        evaluate(CONFIG, **with_test, embeddings=embeddings, output=tmp_path / name)
    assert len(read_table(tmp_path / "one", "map.parquet")) > 0
    for file in KINDS["evaluation"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_killed_run_does_not_predict_a_shard_again(with_test: dict[str, Path], tmp_path: Path) -> None:
    model = read_bundle(with_test["bundle"])
    manifest = read_table(with_test["catalog"], "manifest")
    scorer = Scorer(with_test["catalog"], tmp_path)
    first = manifest[manifest["shard"] == manifest["shard"].iloc[0]]
    scorer(model, first)
    seen: list[int] = []

    class Counting(OnnxEngine):
        def __init__(self) -> None: ...

        def run_squares(self, squares: np.ndarray) -> Outputs:
            seen.append(len(squares))
            return model.engine.run_squares(squares)

    scored = scorer(replace(model, engine=Counting()), manifest)
    assert sum(seen) == len(manifest) - len(first)
    np.testing.assert_allclose(np.stack(scored), direct(with_test, "bundle", slice(60)), atol=1e-6)


def test_a_model_that_gives_no_number_is_refused(with_test: dict[str, Path], tmp_path: Path) -> None:
    class Broken(OnnxEngine):
        def __init__(self) -> None: ...

        def run_squares(self, squares: np.ndarray) -> Outputs:
            return Outputs(np.full((len(squares), 2), np.nan, np.float32), None)

    broken = replace(read_bundle(with_test["bundle"]), engine=Broken())
    with pytest.raises(BundleError, match="run retrain again"):
        Scorer(with_test["catalog"], tmp_path)(broken, read_table(with_test["catalog"], "manifest"))


def test_a_group_on_both_sides_of_the_hold_out_is_refused(with_test: dict[str, Path], tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    manifest = read_table(with_test["catalog"], "manifest")
    manifest.loc[25, "group_id"] = manifest.loc[3, "group_id"]
    write_table(catalog, "manifest", manifest)
    with pytest.raises(LeakageError, match="g1"):
        evaluate(CONFIG, **(with_test | {"catalog": seal(catalog)}), output=tmp_path / "evaluation")


def test_arms_that_were_cross_validated_on_different_labels_are_refused(
    without_test: dict[str, Path], tmp_path: Path
) -> None:
    from scanloop.evaluation.holdout import measure_out_of_fold

    table = read_table(without_test["bundle"], "out_of_fold.parquet")
    drawn = set(table["slice_id"])
    fewer = table[table["slice_id"] != table["slice_id"].iloc[0]]
    with pytest.raises(ArtifactError, match="different labels"):
        measure_out_of_fold({"supervised": fewer, "semi_supervised": table}, drawn, CLASSES, 10)
    with pytest.raises(ArtifactError, match="repeats hold different slices"):
        measure_out_of_fold({"supervised": table.iloc[1:], "semi_supervised": table}, drawn, CLASSES, 10)
    with pytest.raises(TooFewLabelsError):
        measure_out_of_fold({"supervised": table, "semi_supervised": table}, set(), CLASSES, 10)
