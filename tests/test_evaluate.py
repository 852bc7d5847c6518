"""The step evaluate, on real bundles of a network that reads brightness."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from scanloop.archive.shards import ShardWriter
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.read import read_bundle
from scanloop.bundle.write import write_bundle
from scanloop.config import EvaluateConfig
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ArtifactError, BundleError, LeakageError, TooFewLabelsError
from scanloop.evaluation.holdout import mean_probabilities
from scanloop.steps.evaluate import Scorer, evaluate
from scanloop.types import Image

CLASSES = ("cancer", "normal")
CONFIG = EvaluateConfig(resamples=200, seed=1)
INPUTS = ("catalog", "labels", "pseudo_labels", "bundle", "baseline")


class Brightness(torch.nn.Module):
    """Bright is cancer; `bias` moves the border."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]).repeat(1, 3))
            self.head.bias.copy_(torch.tensor([bias, -bias]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


def draw_slices(n: int) -> tuple[list[Image], list[str]]:
    """Bright slices are mostly cancer."""
    rng = np.random.default_rng(0)
    labels = [CLASSES[row % 2] for row in range(n)]
    levels = [rng.normal(140 if label == "cancer" else 100, 22) for label in labels]
    return [np.clip(rng.normal(level, 10, (20, 24)), 0, 255).astype(np.uint8) for level in levels], labels


def to_png(image: Image) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


def new_catalog(folder: Path, test: bool) -> pd.DataFrame:
    """60 slices in groups of two: first 30 with labels, 20 of them the test; slice 40 has a copy under another uri."""
    images, labels = draw_slices(60)
    writer = ShardWriter(folder, shard_slices=25)
    rows = []
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        slice_id = hashlib.sha256(str(row).encode()).hexdigest()
        split = "test" if test and row < 20 else "train"
        known = label if row < 30 else None
        rows.append({"slice_id": slice_id, "group_id": f"g{row // 2}", "label": known, "split": split}
                    | writer.add(slice_id, to_png(image))._asdict())  # fmt: skip
    writer.close()
    manifest = pd.DataFrame(rows)
    uris = [f"scans/{row}.png" for row in range(60)] + ["scans/copy of 40.png"]
    sources = pd.DataFrame({"slice_id": [*manifest["slice_id"], manifest["slice_id"][40]], "uri": uris})
    write_table(folder, "manifest", manifest)
    write_table(folder, "sources.parquet", sources)
    write_json(folder / "catalog.json", {"classes": CLASSES, "positive_class": "cancer"})
    return manifest


def out_of_fold(manifest: pd.DataFrame, bought: list[int], noise: float) -> pd.DataFrame:
    """Two repeats of the labelled training slices and of those bought later, whose logits are wrong on purpose."""
    rng = np.random.default_rng(5)
    rows = []
    for repeat in range(2):
        for row in [*np.flatnonzero(manifest["label"].notna() & (manifest["split"] == "train")), *bought]:
            label = manifest["label"][row] or "cancer"
            sign = (1 if label == "cancer" else -1) * (-1 if row in bought else 1)
            logit = 1.5 * sign + noise * rng.normal()
            rows.append({"slice_id": manifest["slice_id"][row], "group_id": manifest["group_id"][row], "repeat": repeat,
                         "fold": int(row) % 3, "label": label, "logits": [logit, -logit]})  # fmt: skip
    return pd.DataFrame(rows)


def seal(folder: Path) -> Path:
    """Give an artifact the key that the step reads."""
    write_json(folder / "artifact.json", {"key": hashlib.sha256(str(folder).encode()).hexdigest()})
    return folder


def new_run(folder: Path, test: bool, promoted: bool = True) -> dict[str, Path]:
    """Every input of the step; slices 50 and 51 were bought, 31 and 32 were promoted."""
    manifest = new_catalog(folder / "catalog", test)
    bought = [50, 51]
    answers = pd.DataFrame({"slice_id": manifest["slice_id"][bought], "label": ["cancer", "normal"]})
    write_table(folder / "labels", "labels.parquet", answers)
    pool = [row for row in range(30, 60) if row not in bought]
    uris = [(manifest["slice_id"][row], f"scans/{row}.png") for row in pool] + [
        (manifest["slice_id"][40], "scans/copy of 40.png")
    ]
    pseudo = pd.DataFrame(uris, columns=["slice_id", "uri"])
    pseudo["promoted"] = [promoted and row in (1, 2) for row in range(len(pseudo))]
    pseudo["reason"] = np.where(pseudo["promoted"], "promoted", "low_confidence")
    write_table(folder / "pseudo_labels", "pseudo_labels.parquet", pseudo)
    baseline = (0.4, 2.0)
    for name, (bias, noise) in (("bundle", (0.0, 1.0) if promoted else baseline), ("baseline", baseline)):
        write_table(folder / name, "out_of_fold.parquet", out_of_fold(manifest, bought, noise))
        facts = BundleFacts(
            "mean brightness", "none", CLASSES, "cancer", Preprocess(32, 16), Calibration(1.0, "none", 30, 15),
            tuple(draw_slices(3)[0]), "d" * 64, {"labelled": {"cancer": 15, "normal": 15}}, {},
        )  # fmt: skip
        write_bundle(folder / name, Brightness(bias), facts)
    return {name: seal(folder / name) for name in INPUTS}


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


def test_two_runs_leave_the_same_bytes(with_test: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        evaluate(CONFIG, **with_test, output=tmp_path / name)
    for file in ("metrics.json", "predictions.parquet", "curves.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_killed_run_does_not_predict_a_shard_again(with_test: dict[str, Path], tmp_path: Path) -> None:
    model = read_bundle(with_test["bundle"])
    manifest = read_table(with_test["catalog"], "manifest")
    scorer = Scorer(with_test["catalog"], tmp_path)
    first = manifest[manifest["shard"] == manifest["shard"].iloc[0]]
    scorer(model, first)
    seen: list[int] = []

    def forward(inputs: np.ndarray) -> np.ndarray:
        seen.append(len(inputs))
        return model.forward(inputs)

    scored = scorer(replace(model, forward=forward), manifest)
    assert sum(seen) == len(manifest) - len(first)
    np.testing.assert_allclose(np.stack(scored), direct(with_test, "bundle", slice(60)), atol=1e-6)


def test_a_model_that_gives_no_number_is_refused(with_test: dict[str, Path], tmp_path: Path) -> None:
    broken = replace(
        read_bundle(with_test["bundle"]), forward=lambda inputs: np.full((len(inputs), 2), np.nan, np.float32)
    )
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
