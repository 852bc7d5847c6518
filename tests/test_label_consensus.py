"""Consensus: the published formulas computed plainly, readers of known accuracy, and advice that decides nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from label_stores import CLASSES, enrol, publish_images, read_one, slice_ids, write_catalog, write_queue
from test_label_command import ran

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.labelling.adjudication import adjudicate
from scanloop.labelling.consensus import Read, find_consensus, gather
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.export import labels_as_of
from scanloop.labelling.predicted import model_labels, model_probabilities
from scanloop.labelling.store import Store, open_store
from scanloop.types import Float


def simulated(seed: int, accuracies: tuple[float, ...], images: int = 400, classes: int = 3, each: int = 2) -> Read:
    """Readers who err evenly, and a model right in 7 of 10 images; the first class is twice as frequent."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes + 1, images) % classes
    said = rng.dirichlet(np.ones(classes), images) * 0.3
    guess = np.where(rng.random(images) < 0.7, truth, rng.integers(0, classes, images))
    said[np.arange(images), guess] += 0.7
    given = np.full((images, len(accuracies)), np.nan)
    for row in range(images):
        for reader in rng.choice(len(accuracies), each, replace=False):
            wrong = (truth[row] + rng.integers(1, classes)) % classes
            given[row, reader] = truth[row] if rng.random() < accuracies[reader] else wrong
    ids = tuple(f"{number:04d}" for number in range(images))
    nobody = np.zeros(images, dtype=bool)
    names, labels = tuple(f"r{number}" for number in range(len(accuracies))), tuple("abc"[:classes])
    return Read(ids, names, given, said, labels, nobody, nobody, 0)


def plain_crowdlab(given: Float, said: Float) -> tuple[list[int], list[float]]:
    """Section 4 of arXiv:2210.06812, image by image, for the label that most readers give."""
    images, readers = given.shape
    classes = said.shape[1]
    votes = [[int(one) for one in row if not np.isnan(one)] for row in given]
    consensus = []
    for row, vote in enumerate(votes):
        tally = [vote.count(one) for one in range(classes)]
        tied = [one for one in range(classes) if tally[one] == max(tally)]
        consensus.append(max(tied, key=lambda one: said[row][one]))
    several = [row for row in range(images) if len(votes[row]) > 1]
    share = float(np.mean([votes[row].count(consensus[row]) / len(votes[row]) for row in several]))
    commonest = np.bincount([consensus[row] for row in several]).argmax()
    by_chance = float(np.mean([consensus[row] != commonest for row in several]))
    weights = []
    for reader in range(readers):
        same = pairs = 0
        for row in several:
            if not np.isnan(given[row, reader]):
                others = [given[row, other] for other in range(readers) if other != reader]
                others = [one for one in others if not np.isnan(one)]
                same += sum(one == given[row, reader] for one in others)
                pairs += len(others)
        weights.append(max(1 - (1 - same / pairs) / by_chance, 1e-6))
    error = float(np.mean([said[row].argmax() != consensus[row] for row in several]))
    model = max(1 - error / by_chance, 1e-6) * np.sqrt(np.mean([len(vote) for vote in votes]))
    after = []
    for row in range(images):
        total, total_weight = said[row] * model, model
        for reader in range(readers):
            if not np.isnan(given[row, reader]):
                word = np.full(classes, (1 - share) / (classes - 1))
                word[int(given[row, reader])] = share
                total, total_weight = total + weights[reader] * word, total_weight + weights[reader]
        after.append(total / total_weight)
    quality = [float(after[row][consensus[row]]) for row in range(images)]
    return consensus, quality


def test_consensus_and_its_quality_are_those_of_the_paper() -> None:
    read = simulated(3, (0.95, 0.8, 0.7, 0.6), images=120)
    found = find_consensus(read)
    consensus, quality = plain_crowdlab(read.given, read.probabilities)
    assert [read.classes.index(one) for one in found.images["consensus"]] == consensus
    assert found.images["quality"].tolist() == pytest.approx(quality, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_readers_are_ranked_by_how_often_they_are_right(seed: int) -> None:
    found = find_consensus(simulated(seed, (0.98, 0.85, 0.7, 0.55), images=800)).readers
    assert found["reader"].tolist() == ["r0", "r1", "r2", "r3"]
    assert (np.diff(found["quality"]) < 0).all()
    assert found["readings"].sum() == found["shared"].sum() == 1600


def test_images_that_readers_and_model_see_differently_are_read_again_first() -> None:
    read = simulated(0, (0.95, 0.9, 0.85), each=3)
    images = find_consensus(read, propose=30).images
    assert images["read_again"].sum() == 30
    differ = images.loc[images["read_again"], "agreement"].mean()
    assert differ < images.loc[~images["read_again"], "agreement"].mean() - 0.2


def test_where_no_two_readers_share_an_image_the_quality_is_the_models_probability() -> None:
    read = simulated(1, (0.9, 0.8), each=1)
    found = find_consensus(read)
    given = np.nanmax(read.given, axis=1).astype(int)
    assert found.images["quality"].tolist() == pytest.approx(
        [read.probabilities[row, one] / read.probabilities[row].sum() for row, one in enumerate(given)], abs=1e-4
    )
    assert found.readers["quality"].isna().all()
    assert found.readers["agreement"].isna().all()
    assert found.readers["shared"].tolist() == [0, 0]
    assert found.model_weight is None


def probabilities(count: int) -> dict[str, list[float]]:
    return {one: [0.9, 0.1] if number % 2 else [0.2, 0.8] for number, one in enumerate(slice_ids(count))}


def test_what_gives_no_label_is_no_reading_and_what_was_decided_is_never_proposed(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 6, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    enrol(store, "clara", role="adjudicator")
    for first, second in (
        ("normal", "pneumonia"), ("normal", "pneumonia"), ("unsure", "bad image"), ("normal", "unsure"),
        ("normal", "normal"), ("normal", "normal"),
    ):  # fmt: skip
        task = read_one(store, "anna", first)
        read_one(store, "ben", second)
    adjudicate(store, "clara", 1, "pneumonia")
    read = gather(store, {one: said for one, said in probabilities(6).items() if one != task.slice_id}, CLASSES)
    assert (read.slice_ids, read.left_out) == ((*slice_ids(2), *slice_ids(5)[3:]), 2)
    assert np.isnan(read.given[2, read.readers.index("ben")])
    assert (read.adjudicated.tolist(), read.disputed.tolist()) == (
        [True, False, False, False],
        [False, True, True, False],
    )
    with store.reading() as session:
        before = labels_as_of(session, store.clock())[0]
    images = find_consensus(read).images
    assert images.loc[images["read_again"], "slice_id"].tolist() == [slice_ids(5)[4]]
    with store.reading() as session:
        assert labels_as_of(session, store.clock())[0].equals(before), "advice changes no label"


def test_quality_is_shown_and_written(tmp_path: Path) -> None:
    url, said = f"sqlite:///{tmp_path / 'labels.db'}", probabilities(4)
    store = open_store(url)
    publish_images(store, tmp_path, 4, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    for given in ("pneumonia", "normal", "pneumonia", "normal"):
        read_one(store, "anna", given)
        read_one(store, "ben", "normal")
    evaluation = tmp_path / "evaluation"
    rows = [{"slice_id": one, "uri": one, "probabilities": values} for one, values in said.items()]
    write_table(evaluation, "predictions.parquet", pd.DataFrame(rows))
    write_json(evaluation / "metrics.json", {})
    report = tmp_path / "quality"
    options = ("--store", url, "--quality", evaluation, "--report", report)
    assert "anna" in ran("status", *options)
    found = json.loads(ran("status", *options, "--json"))["quality"]
    assert [(one["reader"], one["readings"]) for one in found["readers"]] == [("anna", 4), ("ben", 4)]
    assert found["readers"][0]["quality"] > found["readers"][1]["quality"], "anna says what the model says"
    table = read_table(report, "quality.parquet")
    assert table["slice_id"].tolist() == slice_ids(4)
    assert read_json(report / "quality.json")["readers"] == found["readers"]
    before = (report / "quality.parquet").read_bytes()
    ran("status", *options)
    assert (report / "quality.parquet").read_bytes() == before


def test_the_models_word_is_read_from_a_queue(tmp_path: Path) -> None:
    queue, catalog = write_queue(tmp_path, slice_ids(2)), write_catalog(tmp_path)
    assert model_probabilities(queue, 2) == {}
    rows = read_table(queue, "queue.parquet")
    write_table(queue, "queue.parquet", rows.assign(probabilities=[[0.3, 0.7], None]))
    assert model_labels(queue, catalog) == {slice_ids(1)[0]: "pneumonia"}
