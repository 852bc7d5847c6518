"""When the loop goes round by itself: what is due, and what was done already."""

from pathlib import Path

import pytest
from chain import Chain
from label_stores import CLASSES, enrol, publish_images, read_one, take

from scanloop.artifacts import read_json, write_json
from scanloop.config import AcquireConfig, LabelConfig
from scanloop.labelling import demand
from scanloop.labelling.adjudication import adjudicate
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import close_wave
from scanloop.steps.acquire import acquire
from scanloop.steps.publish import PublishSummary, publish

NORMAL, PNEUMONIA = CLASSES


def test_a_wave_is_learnt_from_once_when_its_last_image_is_read(store: Store, tmp_path: Path) -> None:
    assert demand.learning_due(store).why == "no wave was published yet"
    enrol(store, "ada")
    publish_images(store, tmp_path, 3)
    read_one(store, "ada", NORMAL)
    assert demand.learning_due(store) == demand.Demand(False, "images of wave 1: 2 lack readings", "1")
    read_one(store, "ada", NORMAL)
    take(store, "ada")
    assert demand.learning_due(store).why == "images of wave 1: 1 lie before readers"
    read_one(store, "ada", PNEUMONIA)
    assert demand.learning_due(store) == demand.Demand(True, "wave 1 is read to the end", "1")
    demand.note_learnt(store, 1, "runs/brain")
    assert demand.learning_due(store) == demand.Demand(False, "wave 1 was learnt from before", "1")
    publish_images(store, tmp_path, 2, key="key-2", ids=["new-1", "new-2"])
    assert demand.learning_due(store).why == "images of wave 2: 2 lack readings"


def test_readings_that_differ_are_decided_first(store: Store, tmp_path: Path) -> None:
    enrol(store, "ada", "ben")
    enrol(store, "cleo", role="adjudicator")
    publish_images(store, tmp_path, 1, policy=DoubleReading("all"))
    task = read_one(store, "ada", NORMAL)
    read_one(store, "ben", PNEUMONIA)
    assert demand.learning_due(store).why == "images of wave 1: 1 wait for an adjudicator"
    adjudicate(store, "cleo", task.task, NORMAL)
    assert demand.learning_due(store).is_due


def test_a_closed_wave_is_learnt_from_as_far_as_it_was_read(store: Store, tmp_path: Path) -> None:
    enrol(store, "ada")
    enrol(store, "dora", role="curator")
    publish_images(store, tmp_path, 3)
    close_wave(store, "dora")
    assert demand.learning_due(store).why == "nobody read an image of wave 1"
    publish_images(store, tmp_path, 3, key="key-2")
    read_one(store, "ada", NORMAL)
    close_wave(store, "dora")
    assert demand.learning_due(store) == demand.Demand(True, "wave 2 is read to the end", "2")


def triage_with(folder: Path, name: str, ari: float | None) -> Path:
    write_json(folder / name / "triage.json", {"ari": ari})
    write_json(folder / name / "artifact.json", {"key": name})
    return folder / name


@pytest.mark.parametrize(("now", "due"), [(0.5, False), (0.46, False), (0.44, True), (-0.1, True), (None, False)])
def test_a_fall_of_more_than_a_tenth_of_the_rand_index_asks_for_a_wave(
    now: float | None, due: bool, tmp_path: Path
) -> None:
    labels = open_store(f"sqlite:///{tmp_path / 'labels.db'}")
    before, today = triage_with(tmp_path, "before", 0.5), triage_with(tmp_path, "today", now)
    assert demand.wave_due(labels, before, today, 0.1).is_due is due
    labels.engine.dispose()


def test_a_triage_asks_once_and_not_while_a_wave_is_open(store: Store, tmp_path: Path) -> None:
    before, today = triage_with(tmp_path, "before", 0.5), triage_with(tmp_path, "today", 0.2)
    enrol(store, "dora", role="curator")
    publish_images(store, tmp_path, 1)
    assert "wave 1 is being read (1 lack readings)" in demand.wave_due(store, before, today, 0.1).why
    close_wave(store, "dora")
    found = demand.wave_due(store, before, today, 0.1)
    assert (found.is_due, found.subject) == (True, "today")
    assert "was 0.500 and is 0.200, a fall of 60 %" in found.why
    demand.note_requested(store, "today", found.why)
    assert "asked for already" in demand.wave_due(store, before, today, 0.1).why
    assert demand.wave_due(store, before, triage_with(tmp_path, "tomorrow", 0.2), 0.1).is_due


def test_a_step_publishes_a_queue_once_and_says_why_it_does_not(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCANLOOP_LABEL_STORE", raising=False)
    address, given = f"sqlite:///{tmp_path / 'labels.db'}", chain.inputs("catalog", "queue")
    assert "no label store is named" in str(publish(LabelConfig(), **given, output=tmp_path / "nowhere").why)
    found = publish(LabelConfig(store=address, total_limit=7), **given, output=tmp_path / "published")
    assert found == PublishSummary(1, 7)
    assert read_json(tmp_path / "published" / "publication.json")["store"] == address
    assert publish(LabelConfig(store=address), **given, output=tmp_path / "again") == PublishSummary(1, 7)
    nothing = acquire(
        AcquireConfig(budget_eur=0), **chain.inputs("catalog", "embeddings", "triage"), output=tmp_path / "queue"
    )
    assert nothing.labels == 0
    empty = {"catalog": chain["catalog"], "queue": tmp_path / "queue"}
    assert publish(LabelConfig(store=address), **empty, output=tmp_path / "empty").why == "the queue is empty"
    other = f"sqlite:///{tmp_path / 'other.db'}"
    refused = publish(LabelConfig(store=other, total_limit=0), **given, output=tmp_path / "refused")
    assert (refused.wave, refused.images) == (None, 0)
    assert "the limit of 0 annotations in all is reached" in str(refused.why)


def test_the_environment_names_the_store_before_the_configuration(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLOOP_LABEL_STORE", f"sqlite:///{tmp_path / 'environment.db'}")
    config = LabelConfig(store=f"sqlite:///{tmp_path / 'configured.db'}")
    publish(config, **chain.inputs("catalog", "queue"), output=tmp_path / "published")
    assert (tmp_path / "environment.db").exists()
    assert not (tmp_path / "configured.db").exists()
