"""The step retrain: a calibrated bundle of what was learnt, and the baseline's own where nothing was promoted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chain import LENIENT, PLAN, PLANS, Chain
from safetensors.torch import load_file

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import KINDS, read_json, read_table, write_json, write_table
from scanloop.bundle.read import read_bundle
from scanloop.embedding.encoders import read_encoder
from scanloop.errors import TooFewLabelsError
from scanloop.learning.finetune import Classifier
from scanloop.learning.heads import Head
from scanloop.steps.pseudo_label import pseudo_label
from scanloop.steps.retrain import retrain

LEARNT = ("catalog", "encoder", "embeddings", "triage", "labels")


def contents(artifact: Path) -> dict[str, bytes]:
    return {name: (artifact / name).read_bytes() for name in KINDS["bundle"]}


@pytest.fixture(scope="module")
def refused(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pseudo-labels of which the gate lets nothing through: a bound of the difference cannot lie above zero here."""
    folder = tmp_path_factory.mktemp("refused") / "pseudo_labels"
    strict = LENIENT.model_copy(update={"margin": 0.0})
    pseudo_label(strict, **chain.inputs("catalog", "embeddings", "triage", "labels"), output=folder)
    return folder


def test_without_anything_of_the_pool_the_bundle_is_the_baselines_to_the_byte(
    chain: Chain, refused: Path, tmp_path: Path
) -> None:
    retrain(PLANS["bundle"][1], **chain.inputs(*LEARNT), pseudo_labels=refused, output=tmp_path / "bundle")
    assert contents(tmp_path / "bundle") == contents(chain["baseline"])
    assert read_bundle(tmp_path / "bundle").digest == read_bundle(chain["baseline"]).digest


def test_what_the_pool_teaches_makes_another_model(chain: Chain) -> None:
    assert read_bundle(chain["bundle"]).digest != read_bundle(chain["baseline"]).digest
    summary, baseline = chain.summary("bundle"), chain.summary("baseline")
    assert summary.pseudo_labelled == chain.summary("pseudo_labels").soft_labelled > baseline.pseudo_labelled == 0
    assert summary.labelled == baseline.labelled == 49  # forty from the start and nine bought
    assert read_json(chain["bundle"] / "bundle.json")["counts"]["pseudo_labelled"] != {"lesion": 0, "normal": 0}


@pytest.mark.parametrize("name", ["baseline", "bundle"])
def test_the_bundle_in_process_gives_torchs_probabilities_on_slices_of_the_archive(name: str, chain: Chain) -> None:
    bundle = read_bundle(chain[name])
    encoder, preprocess = read_encoder(chain["encoder"])
    model = Classifier(encoder, Head(np.zeros((encoder.dimension, 2)), np.zeros(2)))
    model.load_state_dict(load_file(chain[name] / "model.safetensors"))
    rows = read_table(chain["catalog"], "manifest").sample(20, random_state=1)
    for _, _, images in iterate_shards(chain["catalog"], rows):
        with torch.inference_mode():
            logits = model.eval().double()(torch.from_numpy(preprocess(images)).double()).numpy()
        assert bundle.calibrator.method == "temperature"  # there are too few labels to prove more
        expected = np.exp(logits / bundle.calibrator.temperature)
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(bundle.predict(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["baseline", "bundle"])
def test_out_of_fold_covers_each_drawn_row_once_a_repeat_and_no_other(name: str, chain: Chain) -> None:
    table, manifest = read_table(chain[name], "out_of_fold.parquet"), read_table(chain["catalog"], "manifest")
    drawn = manifest[manifest["label"].notna() & (manifest["split"] == "train")]
    assert sorted(table["repeat"].unique()) == list(range(PLAN.repeats))
    for _, rows in table.groupby("repeat"):
        assert sorted(rows["slice_id"]) == sorted(drawn["slice_id"])
        assert (rows.groupby("group_id")["fold"].nunique() == 1).all()
        assert rows["fold"].nunique() == PLAN.folds
    said = table.merge(manifest, on="slice_id", suffixes=("", "_given"))
    assert (said["label"] == said["label_given"]).all()
    assert (said["group_id"] == said["group_id_given"]).all()
    assert table["logits"].map(len).eq(2).all()


@pytest.mark.parametrize("name", ["baseline", "bundle"])
def test_the_calibrator_stands_on_the_drawn_labels_and_says_what_it_mended(name: str, chain: Chain) -> None:
    calibration = read_json(chain[name] / "calibration.json")
    table = read_table(chain[name], "out_of_fold.parquet")
    assert calibration["calibrator"]["method"] == chain.summary(name).calibration
    assert set(calibration["candidates"]) == {"none", "temperature", "affine", "beta"}  # under 200 groups no isotonic
    labels = read_table(chain["catalog"], "manifest").set_index("slice_id").loc[table["slice_id"], "label"]
    shares = (labels == "lesion").mean()
    assert calibration["prior"]["labelled"]["lesion"] == pytest.approx(shares)
    assert calibration["prior"]["served"] == calibration["prior"]["labelled"] != calibration["prior"]["pool"]
    assert (calibration["n"], calibration["groups"]) == (table["slice_id"].nunique(), table["group_id"].nunique())
    assert np.isfinite(np.stack(table["logits"])).all()


def test_a_held_out_label_changes_no_byte_of_the_model(chain: Chain, tmp_path: Path) -> None:
    """The test split's labels are turned round; all that was learnt stays as it was."""
    import shutil

    catalog = shutil.copytree(chain["catalog"], tmp_path / "catalog")
    manifest = read_table(catalog, "manifest")
    held_out = manifest["split"] == "test"
    turned = manifest["label"].map({"lesion": "normal", "normal": "lesion"})
    write_table(catalog, "manifest", manifest.assign(label=manifest["label"].where(~held_out, turned)))
    record = read_json(catalog / "artifact.json")
    write_json(catalog / "artifact.json", record | {"key": "another"})
    inputs = chain.inputs("encoder", "embeddings", "triage", "labels")
    retrain(PLANS["baseline"][1], catalog=catalog, **inputs, output=tmp_path / "bundle")
    assert contents(tmp_path / "bundle") == contents(chain["baseline"])


def test_no_more_of_the_pool_is_learnt_from_than_was_drawn(chain: Chain, tmp_path: Path) -> None:
    few = LENIENT.model_copy(update={"max_pool_slices": 3})
    pseudo_label(few, **chain.inputs("catalog", "embeddings", "triage", "labels"), output=tmp_path / "pseudo_labels")
    table = read_table(tmp_path / "pseudo_labels", "pseudo_labels.parquet").drop_duplicates("slice_id")
    drawn = table[table["weight"].notna()]
    assert len(drawn) == drawn["soft"].notna().sum() == 3
    config = PLANS["bundle"][1].model_copy(update={"finetune_epochs": 0})
    inputs = chain.inputs(*LEARNT) | {"pseudo_labels": tmp_path / "pseudo_labels"}
    first, again = (retrain(config, **inputs, output=tmp_path / name) for name in ("a", "b"))
    assert first == again
    assert first.pseudo_labelled == 3
    learnt = read_table(tmp_path / "a", "learnt.parquet")
    assert set(learnt.loc[learnt["source"] == "pseudo_labelled", "slice_id"]) == set(drawn["slice_id"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_too_few_labelled_groups_of_a_class_are_refused_by_name(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import retrain as module

    read = module.known_rows

    def few(*arguments: object) -> object:
        known = read(*arguments)
        rare = np.unique(known.groups[known.labels == 1])[:2]
        return known.take((known.labels == 0) | np.isin(known.groups, rare))

    monkeypatch.setattr(module, "known_rows", few)
    with pytest.raises(TooFewLabelsError, match=r"class 'normal' has 2 labelled.*label at least 3"):
        retrain(PLANS["baseline"][1], **chain.inputs(*LEARNT), output=tmp_path / "bundle")


def test_a_label_that_came_after_its_wave_is_not_learnt_from(chain: Chain, tmp_path: Path) -> None:
    table, manifest = read_table(chain["labels"], "labels.parquet"), read_table(chain["catalog"], "manifest")
    pool = manifest[(manifest["split"] == "train") & manifest["label"].isna()]["slice_id"]
    new = pool[~pool.isin(table["slice_id"])].iloc[0]
    row = table.iloc[:1].assign(slice_id=new, as_of="2026-06-01T00:00:00Z")
    labels = tmp_path / "labels"
    write_table(labels, "labels.parquet", pd.concat([table, row], ignore_index=True))
    write_json(labels / "labels.json", read_json(chain["labels"] / "labels.json"))
    write_json(labels / "artifact.json", read_json(chain["labels"] / "artifact.json") | {"key": "later"})
    config = PLANS["bundle"][1].model_copy(update={"finetune_epochs": 0})
    inputs = chain.inputs("catalog", "encoder", "embeddings", "triage")
    wave = chain["pseudo_labels"]
    retrain(config, **inputs, labels=labels, pseudo_labels=wave, output=tmp_path / "bundle")
    learnt = read_table(tmp_path / "bundle", "learnt.parquet")
    assert read_json(wave / "certificate.json")["labels_as_of"] == "2026-01-01T00:00:00Z"
    bought = set(table.dropna(subset="label")["slice_id"])
    assert bought <= set(learnt.loc[learnt["source"] == "labelled", "slice_id"])
    assert new not in set(learnt.loc[learnt["source"] == "labelled", "slice_id"])
    retrain(
        config, **chain.inputs("catalog", "encoder", "embeddings", "triage"), labels=labels, output=tmp_path / "all"
    )
    learnt = read_table(tmp_path / "all", "learnt.parquet")
    assert new in set(learnt["slice_id"]), "without a wave there is none that it came after"
