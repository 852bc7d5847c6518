"""A whole round by itself: a queue is published, read, learnt from, and clusters that moved ask for the next wave."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from label_stores import CLASSES, enrol, publish_images, read_one, take
from local_run import ROOT, TINY, run
from sqlalchemy import select
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.trigger import tick
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.config import RunConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError, SubmissionError
from scanloop.labelling.readers import add_reader
from scanloop.labelling.reading import NoTask, answer, next_task
from scanloop.labelling.schema import Event
from scanloop.labelling.store import Store, open_store

DEMO = ROOT / "configs" / "demo.yaml"


def look(config: Path, folder: Path, *options: str) -> str:
    """One look of the trigger, as a user starts it."""
    command = [sys.executable, "-m", "pipelines", "trigger", "--config", str(config), "--run", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Noted:
    """A place that notes what it is asked for."""

    asked: list[str] = field(default_factory=list)
    works: bool = True

    def improve(self, store: Store, config: RunConfig, wave: str) -> str:
        if not self.works:
            raise SubmissionError("the server is away")
        self.asked.append(f"improve after wave {wave}")
        return "https://kfp.example/1"

    def ask(self, config: RunConfig) -> str:
        self.asked.append("ask")
        return "https://kfp.example/2"


def test_what_could_not_be_started_is_started_at_the_next_look_and_only_once(store: Store, tmp_path: Path) -> None:
    enrol(store, "ada")
    publish_images(store, tmp_path, 1)
    read_one(store, "ada", CLASSES[0])
    place, config, said = Noted(works=False), load_config(DEMO), []
    with pytest.raises(SubmissionError):
        tick(store, config, place, None, said.append)
    place.works = True
    assert tick(store, config, place, None, said.append)
    assert not tick(store, config, place, None, said.append)
    assert place.asked == ["improve after wave 1"]
    assert "improve: https://kfp.example/1" in said
    with store.reading() as session:
        event = session.scalars(select(Event).where(Event.kind == "learn")).one()
        assert (event.wave_id, event.detail) == (1, {"run": "https://kfp.example/1"})


def test_a_cluster_needs_an_address_for_the_labels(tmp_path: Path) -> None:
    options = ["trigger", "--config", str(DEMO), "--run", str(tmp_path), "--host", "https://kfp.example"]
    found = CliRunner().invoke(app, options, env={"TERM": "dumb"})
    assert isinstance(found.exception, ConfigError)
    assert "--host needs --labels" in str(found.exception)


@pytest.mark.integration
def test_a_wave_that_was_read_is_learnt_from_once_and_clusters_that_moved_ask_for_the_next(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", tmp_path / "tiny.yaml"
    config.write_text(TINY + f"label: {{store: 'sqlite:///{tmp_path / 'labels.db'}'}}\n")
    made = run(config, folder, "--pipeline", "intake")
    assert made.code == 0, made.text
    publication = read_json(folder / "publication" / "publication.json")
    assert (publication["wave"], publication["images"]) == (1, 10)
    assert "wave 1" in (folder / "report" / "report.html").read_text()

    assert "10 lack readings" in look(config, folder)
    assert not (folder / "labels").exists()
    hidden = read_table(folder / "catalog", "hidden_labels.parquet").set_index("slice_id")["label"]
    store = open_store(f"sqlite:///{tmp_path / 'labels.db'}")
    add_reader(store, "ada")
    while not isinstance(next_task(store, "ada"), NoTask):
        task = take(store, "ada")
        answer(store, "ada", task.task, hidden[task.slice_id], task.token)

    told = look(config, folder)
    assert "wave 1 is read to the end" in told
    assert f"improve: {folder}" in told.replace("\n", "")
    labels = read_table(folder / "labels", "labels.parquet").set_index("slice_id")["label"]
    assert labels.to_dict() == hidden[labels.index].to_dict()
    learnt = read_table(folder / "bundle", "learnt.parquet")["slice_id"]
    assert set(labels.index) <= set(learnt)
    assert read_json(folder / "promotion" / "promotion.json")["decision"] in {"promoted", "refused"}
    assert "learnt from before" in look(config, folder)

    facts = json.loads((folder / "triage" / "triage.json").read_text())
    write_json(tmp_path / "before" / "triage.json", facts | {"ari": 0.9})
    facts["ari"] = facts["ari"] or 0.1
    assert facts["ari"] < 0.8
    told = look(config, folder, "--baseline", str(tmp_path / "before"))
    assert "a wave was asked for: wave 2" in told
    following = read_table(folder / "next_queue", "queue.parquet")["slice_id"]
    assert not set(following) & set(labels.index)
    assert "wave 2 is being read" in look(config, folder, "--baseline", str(tmp_path / "before"))
    store.engine.dispose()
