"""A bundle judged on a labelled set from elsewhere, as it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from brightness import CLASSES, draw_slices, to_png
from foreign_set import CONFIG, evaluated, foreign, judged_run  # noqa: F401  fixtures
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score
from typer.testing import CliRunner

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.bundle.abstention import no_abstention
from scanloop.bundle.exemplars import no_exemplars
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.points import argmax_only
from scanloop.bundle.read import read_bundle
from scanloop.bundle.write import write_bundle
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import no_conformal
from scanloop.cli import app
from scanloop.config import ExternalConfig
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ConfigError, TooFewLabelsError
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.external import external_metrics, matched, unpaired_difference
from scanloop.evaluation.intervals import Resampling
from scanloop.steps.validate_external import validate_external
from scanloop.types import Interval


def test_metrics_are_those_of_the_model_as_it_is_at_the_threshold_fixed_before(
    run: dict[str, Path], tmp_path: Path
) -> None:
    summary = validate_external(
        CONFIG, catalog=foreign(tmp_path, run), bundle=run["bundle"], output=tmp_path / "external"
    )
    found = read_json(tmp_path / "external" / "external.json")
    probabilities = read_bundle(run["bundle"]).predict(draw_slices(60)[0][:20])
    labels = np.array([CLASSES.index(label) for label in draw_slices(60)[1][:20]])
    said = probabilities.argmax(axis=1)
    metrics = {name: entry["value"] for name, entry in found["metrics"].items()}
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, said))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    called = (probabilities[:, 0] >= 0.7).astype(int)
    (tn, fp), (fn, tp) = confusion_matrix(labels == 0, called)
    for name, value in (
        ("sensitivity", tp / (tp + fn)), ("specificity", tn / (tn + fp)), ("ppv", tp / (tp + fp)),
        ("npv", tn / (tn + fn)),
    ):  # fmt: skip
        entry = found["at_threshold"][name]
        assert entry["value"] == pytest.approx(value), name
        assert entry["low"] <= value <= entry["high"]
    method = read_bundle(run["bundle"]).calibrator.method
    assert (found["at_threshold"]["threshold"], found["calibration"]) == (0.7, method)
    assert (summary.images, summary.groups, summary.left_out) == (20, 10, 10)  # 10 labelled ones were learnt from
    table = read_table(tmp_path / "external", "predictions.parquet")
    assert len(table) == 20
    np.testing.assert_allclose(np.stack(table["probabilities"]), probabilities, atol=1e-6)


def test_the_confidence_is_compared_with_one_round_out_of_fold_of_the_bundle(
    run: dict[str, Path], tmp_path: Path
) -> None:
    validate_external(CONFIG, catalog=foreign(tmp_path, run), bundle=run["bundle"], output=tmp_path / "external")
    drift = read_json(tmp_path / "external" / "external.json")["confidence_drift"]
    table = read_table(run["bundle"], "out_of_fold.parquet")
    first = np.stack(table.loc[table["repeat"] == 0, "logits"])
    own = 1 / (1 + np.exp(-np.abs(first[:, 0] - first[:, 1])))
    assert drift["n_before"] == len(own)
    assert drift["mean_before"] == pytest.approx(own.mean())
    assert drift["score"] > 0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({}, "labelled 'none', 'tumour', the model knows 'cancer', 'normal'"),
        ({"tumour": "cancer", "none": "healthy"}, "knows no 'healthy'"),
        ({"tumour": "cancer", "none": "normal", "ghost": "normal"}, "holds no 'ghost'"),
    ],
)
def test_a_set_of_other_classes_is_refused(
    names: dict[str, str], words: str, run: dict[str, Path], tmp_path: Path
) -> None:
    config = ExternalConfig(classes=names)
    with pytest.raises(ConfigError, match=words):
        validate_external(config, catalog=foreign(tmp_path, run), bundle=run["bundle"], output=tmp_path / "external")


def test_a_set_that_the_model_learnt_from_is_no_judge(run: dict[str, Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"split": "train"})
    with pytest.raises(TooFewLabelsError, match="did not learn from"):
        validate_external(config, catalog=foreign(tmp_path, run), bundle=run["bundle"], output=tmp_path / "external")


def test_labels_are_translated_where_names_differ() -> None:
    assert matched(["b", "a", "x"], {"x": "a"}, ["a", "b"]) == ["b", "a", "a"]


def test_the_difference_of_two_sets_covers_the_truth_as_often_as_it_says() -> None:
    draw, n, hits = np.random.default_rng(0), 80, 0
    for _ in range(400):
        values = []
        for share in (0.8, 0.6):
            right = draw.binomial(n, share) / n
            half = 1.96 * np.sqrt(right * (1 - right) / n)
            values.append(Interval(right, right - half, right + half, n, n))
        found = unpaired_difference(values[0], vars(values[1]))
        assert found is not None
        hits += found["low"] <= 0.2 <= found["high"]
    assert 0.92 <= hits / 400 <= 0.98
    assert unpaired_difference(values[0], {"value": None}) is None


def test_three_classes_have_no_threshold_and_all_the_rest() -> None:
    draw, labels = np.random.default_rng(1), np.arange(90) % 3
    probabilities = draw.dirichlet([1, 1, 1], 90) * 0.5 + 0.5 * np.eye(3)[labels]
    holdout = Holdout(labels, np.arange(90))
    found = external_metrics(probabilities, holdout, ("a", "b", "c"), "a", 0.5, Resampling(100))
    assert found["at_threshold"] is None
    assert found["classes"] == {"a": 30, "b": 30, "c": 30}
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert found["metrics"]["auroc"].value == pytest.approx(expected)
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(labels, probabilities.argmax(axis=1)))


def test_the_command_takes_a_folder_in_and_judges(run: dict[str, Path], evaluation: Path, tmp_path: Path) -> None:
    images, labels = draw_slices(90)
    for row in range(60, 90):
        path = tmp_path / "elsewhere" / "labelled" / labels[row] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_png(images[row]))
    (tmp_path / "elsewhere" / "labelled" / "cancer" / "broken.png").write_bytes(b"no image")
    arguments = ["validate-external", "--bundle", str(run["bundle"]), "--source", str(tmp_path / "elsewhere")]
    arguments += ["--out", str(tmp_path / "out"), "--resamples", "100"]
    refused = CliRunner().invoke(app, arguments)
    assert "deidentify needs a key_file" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--public", "--evaluation", str(evaluation)])
    assert done.exit_code == 0, done.output
    assert "30 images" in done.output
    assert [line for line in done.output.splitlines() if " for FPR <= 0.05" in line]
    found = read_json(tmp_path / "out" / "external" / "external.json")
    said = read_bundle(run["bundle"]).predict(images[60:]).argmax(axis=1)
    expected = accuracy_score([CLASSES.index(label) for label in labels[60:]], said)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(expected)
    assert read_table(tmp_path / "out" / "catalog", "quarantine.parquet")["reason"].tolist() == ["not_an_image"]


def real_bundle(folder: Path, archive: Path) -> Path:
    """A head on an untrained network's features of 300 images of PneumoniaMNIST's training part."""
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.learning.finetune import Classifier
    from scanloop.learning.heads import fit_head

    with np.load(archive) as stored:
        images, labels = stored["train_images"][:300], stored["train_labels"][:300].ravel().astype(np.int64)
    encoder, preprocess = new_encoder("smallcnn", 0), Preprocess(28, 28)
    head = fit_head(Engine(encoder, preprocess, 64)(list(images)), labels, 2, 1e-2)
    classes = ("NORMAL", "PNEUMONIA")
    row = {"slice_id": "0", "group_id": "g", "repeat": 0, "fold": 0, "label": "NORMAL", "logits": [1.0, 0.0]}
    write_table(folder, "out_of_fold.parquet", pd.DataFrame([row]))
    learnt = pd.DataFrame({"slice_id": [str(number) for number in range(300)], "group_id": "g", "source": "labelled"})
    write_table(folder, "learnt.parquet", learnt)
    counts = {name: int((labels == number).sum()) for number, name in enumerate(classes)}
    facts = BundleFacts(
        "smallcnn + linear head", "smallcnn", classes, "PNEUMONIA", preprocess,
        Calibration(Calibrator("none"), "none", 300, 300), no_conformal(2),
        tuple(images[:3]), "d" * 64, {"labelled": counts}, {}, 8, 10**7,
        argmax_only(1), no_abstention(), no_exemplars(), {"float32": 1e-5},
    )  # fmt: skip
    write_bundle(folder, Classifier(encoder, head), facts)
    write_json(folder / "artifact.json", {"key": "real"})
    return folder


def test_a_model_of_small_copies_is_judged_on_the_radiographs_themselves(data_dir: Path, tmp_path: Path) -> None:
    bundle = real_bundle(tmp_path / "bundle", data_dir / "medmnist" / "pneumoniamnist_rebuilt.npz")
    arguments = ["validate-external", "--bundle", str(bundle), "--source", str(data_dir / "kermany_cxr_224.tar")]
    arguments += ["--labelled-dir", "test", "--public", "--out", str(tmp_path / "out"), "--resamples", "200"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = read_json(tmp_path / "out" / "external" / "external.json")
    assert found["classes"] == {"NORMAL": 231, "PNEUMONIA": 387}  # 624 files, six of which are copies
    assert found["metrics"]["auroc"]["low"] > 0.6
