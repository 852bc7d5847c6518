"""Label errors: the published rule computed plainly; proposals that tell readers nothing; answers that take effect."""

from pathlib import Path

import numpy as np
import pytest
from chain import PLANS, Chain
from label_stores import enrol, take
from test_label_command import ran

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.labelling.export import export
from scanloop.labelling.label_errors import REASON, label_errors, suspects
from scanloop.labelling.predicted import model_labels
from scanloop.labelling.reading import answer
from scanloop.labelling.store import Store
from scanloop.labelling.waves import publish
from scanloop.sections.labelling import LabelErrorsConfig
from scanloop.steps.retrain import retrain
from scanloop.tables import TABLES
from scanloop.types import Float, Labels


def noisy(seed: int, n: int = 300, classes: int = 3) -> tuple[Labels, Labels, Float]:
    """True labels, labels of which one in ten is wrong, and what a fair model says."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    given = np.where(rng.random(n) < 0.1, (truth + rng.integers(1, classes, n)) % classes, truth)
    said = rng.dirichlet(np.ones(classes), n) * 0.6
    said[np.arange(n), truth] += 0.4
    return truth, given, said


@pytest.mark.parametrize("seed", range(3))
def test_suspected_labels_are_those_of_the_paper(seed: int) -> None:
    truth, given, said = noisy(seed)
    least = [said[given == one, one].mean() for one in range(3)]
    wrong, margin = [], {}
    for row in range(len(given)):
        sure = [one for one in range(3) if said[row, one] >= least[one]]
        likeliest = max(sure, key=lambda one: said[row, one], default=given[row])
        if likeliest != given[row] and said[row].argmax() != given[row]:
            wrong.append(row)
            margin[row] = said[row, given[row]] - max(said[row, one] for one in range(3) if one != given[row])
    found = suspects(given, said)
    assert found.tolist() == sorted(wrong, key=margin.__getitem__)
    assert (given != truth)[found[:10]].mean() >= 0.8


def test_without_labels_nothing_is_suspected() -> None:
    assert suspects(np.empty(0, dtype=np.int64), np.empty((0, 2))).tolist() == []


@pytest.fixture(scope="module")
def mislabelled(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose baseline is sure that two training labels and one test label are wrong."""
    run = tmp_path_factory.mktemp("mislabelled")
    (run / "catalog").symlink_to(chain["catalog"])
    classes = read_json(run / "catalog" / "catalog.json")["classes"]
    rows = read_table(run / "catalog", "manifest").dropna(subset="label").sort_values("slice_id")
    wrong = {
        *rows.loc[rows["split"] == "train", "slice_id"].head(2),
        rows.loc[rows["split"] == "test", "slice_id"].iloc[0],
    }
    sure = [
        [0.9 if (name == label) != (one in wrong) else 0.1 for name in classes]
        for one, label in zip(rows["slice_id"], rows["label"], strict=True)
    ]
    folds = rows.assign(repeat=0, fold=0, logits=[np.log(one).tolist() for one in sure])[rows["split"] == "train"]
    predictions = rows.assign(uri=rows["slice_id"], given_label=rows["label"], probabilities=sure)
    for name, table, frame in (
        ("baseline", "out_of_fold.parquet", folds), ("evaluation", "predictions.parquet", predictions),
    ):  # fmt: skip
        write_table(run / name, table, frame[[one for one in TABLES[table].names if one in frame]])
        write_json(run / name / "artifact.json", {"key": name})
    return run


def test_training_labels_are_queued_held_out_ones_only_listed_and_no_reader_learns_the_label(
    mislabelled: Path, tmp_path: Path
) -> None:
    queue = tmp_path / "reading"
    told = ran("errors", "--run", mislabelled, "--output", queue, "--price", 0.5, "--budget", 10)
    assert "labelled images queued, EUR 1.00" in told
    rows, found = read_table(queue, "queue.parquet"), read_table(queue, "label_errors.parquet").to_dict("records")
    manifest = read_table(mislabelled / "catalog", "manifest").set_index("slice_id")
    assert {*rows["slice_id"]} == {one["slice_id"] for one in found if one["split"] == "train"}
    assert len(rows) == 2
    assert read_json(queue / "queue.json")["pool"] == (manifest["label"].notna() & manifest["split"].eq("train")).sum()
    assert {*manifest.loc[rows["slice_id"], "split"]} == {"train"}
    assert [one["split"] for one in found if one["split"] != "train"] == ["test"]
    assert {*rows["slice_id"]} <= {*manifest.index[manifest["split"] == "train"]}
    assert {*rows["reason"]} == {REASON}
    assert not any(name in REASON for name in {*manifest["label"].dropna()})
    assert model_labels(queue, mislabelled / "catalog") == {
        one["slice_id"]: one["model"] for one in found if one["split"] == "train"
    }
    few = label_errors(
        LabelErrorsConfig(price_per_label_eur=0.5, budget_eur=0.7), catalog=mislabelled / "catalog",
        baseline=mislabelled / "baseline", output=tmp_path / "few",
    )  # fmt: skip
    assert (few.suspected, few.queued, few.price_eur, few.held_out) == (2, 1, 0.5, 0)


def test_what_is_read_again_is_learnt_and_judges_as_before(
    chain: Chain, mislabelled: Path, store: Store, tmp_path: Path
) -> None:
    catalog = chain["catalog"]
    label_errors(LabelErrorsConfig(), catalog=catalog, baseline=mislabelled / "baseline", output=tmp_path / "queue")
    publish(store, tmp_path / "queue", catalog)
    enrol(store, "anna")
    given = read_table(catalog, "manifest").set_index("slice_id")["label"]
    first = take(store, "anna")
    other = next(name for name in first.classes if name != given[first.slice_id])
    answer(store, "anna", first.task, other, first.token)
    second = take(store, "anna")
    answer(store, "anna", second.task, given[second.slice_id], second.token)
    export(store, tmp_path / "labels")
    config = PLANS["baseline"][1].model_copy(update={"finetune_epochs": 0})
    inputs = chain.inputs("catalog", "encoder", "embeddings", "triage")
    retrain(config, **inputs, labels=tmp_path / "labels", output=tmp_path / "baseline")
    learnt = read_table(tmp_path / "baseline", "learnt.parquet").set_index("slice_id")["label_source"]
    assert (learnt[first.slice_id], learnt[second.slice_id]) == ("reread", "given")
    folds = read_table(tmp_path / "baseline", "out_of_fold.parquet").drop_duplicates("slice_id").set_index("slice_id")
    assert folds.loc[first.slice_id, "label"] == given[first.slice_id]
    counts = read_json(tmp_path / "baseline" / "bundle.json")["counts"]["labelled"]
    plain = given[given.notna() & given.index.isin(learnt.index)].value_counts()
    assert counts[other] == plain[other] + 1, "the head learnt the other label"
    again = label_errors(
        LabelErrorsConfig(), catalog=catalog, baseline=mislabelled / "baseline", labels=tmp_path / "labels",
        output=tmp_path / "again",
    )  # fmt: skip
    assert again.queued == 0
