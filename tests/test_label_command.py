"""`scanloop label`: the store from the command line, its limits in words, refusals with their exit codes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from label_stores import Clock, enrol, publish_images, read_one, slice_ids, write_catalog, write_queue
from test_cli import invoke, shell

from scanloop.artifacts import read_json, read_table
from scanloop.config import STEPS, RunConfig
from scanloop.errors import BudgetError, ConfigError, LabellingError, RoleError
from scanloop.labelling.address import store_address
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.limits import Limits
from scanloop.labelling.store import Store, open_store

LEAST = "ingest: {source: {kind: synthetic}}\n"


def ran(*arguments: object) -> str:
    result = invoke("label", *map(str, arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a catalog and a queue of six images."""
    write_catalog(tmp_path)
    write_queue(tmp_path, slice_ids(6)).rename(tmp_path / "queue")
    return tmp_path


@pytest.fixture
def url(run: Path) -> str:
    return f"sqlite:///{run / 'labels.db'}"


def test_a_queue_goes_through_the_command_line_into_labels(run: Path, url: str) -> None:
    told = ran("publish", "--queue", run / "queue", "--store", url, "--double-reading", "all", "--budget", "5.50")
    assert told == "wave 1: 6 images to read, 0 of the queue left out"
    assert "published from this queue before" in ran("publish", "--queue", run / "queue", "--store", url)
    richer = ran("publish", "--queue", run / "queue", "--store", url, "--budget", "90")
    assert "a curator raises a budget on the page" in richer
    store = open_store(url)
    enrol(store, "anna", "ben")
    enrol(store, "clara", role="curator")
    for given in ("normal", "pneumonia"):
        read_one(store, "anna", given)
        read_one(store, "ben", "normal")
    found = json.loads(invoke("label", "status", "--store", url, "--json").output)
    assert found["wave"]["budget_cents"] == 550
    assert (found["wave"]["read"], found["wave"]["disputed"], found["annotations"]["quarter"]) == (2, 1, 4)
    assert found["agreement"]["images"] == 2
    assert "4 of 3000" in ran("status", "--store", url)
    assert ran("close", "--by", "clara", "--store", url) == "wave 1 is closed"
    assert "1 images read of 6 asked for, EUR 2.20" in ran("export", "--store", url, "--output", run / "labels")
    assert read_table(run / "labels", "labels.parquet")["label"].tolist() == ["normal"]
    before = "2026-01-01T00:00:00"
    ran("export", "--store", url, "--output", run / "earlier", "--as-of", before)
    assert read_json(run / "earlier" / "labels.json")["answered"] == 0


def test_what_passes_the_limit_is_left_out_and_said(run: Path, url: str) -> None:
    config = run / "run.yaml"
    config.write_text(LEAST + f"label: {{store: '{url}', total_limit: 5, quarter_limit: 4}}\n")
    told = ran("publish", "--queue", run / "queue", "--config", config)
    assert told.startswith("wave 1: 4 images to read, 2 of the queue left out")
    assert "2 of them passed the limit, which allowed 4 more annotations (total 5, a quarter 4)" in told


def test_the_limit_of_a_quarter_is_new_in_the_next_and_that_of_all_times_is_not(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    clock.now = datetime(2026, 3, 31, 23, 0, tzinfo=UTC)
    limits = Limits(total=5, quarter=3)
    enrol(store, "anna")
    assert publish_images(store, tmp_path, 9, limits=limits).tasks == 3
    for _ in range(3):
        read_one(store, "anna", "normal")
    with pytest.raises(BudgetError, match="limit of 3 annotations of the quarter from 2026-01-01 is reached"):
        publish_images(store, tmp_path, 9, key="key-2", limits=limits)
    clock.move(hours=1)
    next_wave = publish_images(store, tmp_path, 9, key="key-2", limits=limits)
    assert (next_wave.tasks, next_wave.passed, next_wave.limit) == (2, 4, 2)
    for _ in range(2):
        read_one(store, "anna", "normal")
    clock.move(days=100)
    with pytest.raises(BudgetError, match="limit of 5 annotations in all is reached"):
        publish_images(store, tmp_path, 9, key="key-3", limits=limits)


@pytest.mark.parametrize("price", [0.55, 0.0])
def test_second_readings_count_against_the_limit(store: Store, tmp_path: Path, price: float) -> None:
    enrol(store, "anna", "ben")
    asked = publish_images(store, tmp_path, 9, price=price, policy=DoubleReading("all"), limits=Limits(total=5))
    assert asked.tasks == 2
    model = dict.fromkeys(slice_ids(9), "normal")
    policy = DoubleReading("disagreement")
    asked = publish_images(
        store, tmp_path, 9, key="key-2", price=price, policy=policy, model_labels=model, limits=Limits(total=5)
    )
    assert asked.tasks == (5 if price else 2)
    given = 0
    for reader in ("anna", "ben"):
        for _ in range(asked.tasks):
            try:
                read_one(store, reader, "pneumonia")
            except AssertionError:
                break
            given += 1
    assert given == (5 if price else 4), "where images are free the limit counts their second readings beforehand"


def test_disagreement_needs_what_the_model_says(run: Path, url: str) -> None:
    with pytest.raises(LabellingError, match="does not say what a model thinks"):
        ran("publish", "--queue", run / "queue", "--store", url, "--double-reading", "disagreement")


def test_the_section_is_no_step_and_no_password_may_stand_in_it(run: Path) -> None:
    assert "label" not in STEPS
    assert RunConfig.model_validate({"ingest": {"source": {"kind": "synthetic"}}}).label.total_limit == 3000
    config = run / "run.yaml"
    config.write_text(LEAST + "label: {store: 'postgresql://scanloop:hunter2@db/labels', readings: 1}\n")
    with pytest.raises(ConfigError, match="2 faults") as caught:
        ran("status", "--config", config)
    assert "hunter2" not in str(caught.value)


def test_the_address_is_the_option_then_the_environment_then_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STORE", "PASSWORD", "PASSWORD_FILE"):
        monkeypatch.delenv(f"SCANLOOP_LABEL_{name}", raising=False)
    with pytest.raises(LabellingError, match="say where the label store is"):
        store_address(None, None)
    assert store_address(None, "sqlite:///c.db") == "sqlite:///c.db"
    monkeypatch.setenv("SCANLOOP_LABEL_STORE", "postgresql://anna@db:5433/labels")
    (tmp_path / "secret").write_text("hun/ter2\n")
    monkeypatch.setenv("SCANLOOP_LABEL_PASSWORD_FILE", str(tmp_path / "secret"))
    assert store_address(None, "sqlite:///c.db") == "postgresql://anna:hun%2Fter2@db:5433/labels"
    assert store_address("sqlite:///o.db", None) == "sqlite:///o.db"
    with pytest.raises(LabellingError, match="others see the options"):
        store_address("postgresql://anna:hunter2@db/labels", None)
    monkeypatch.setenv("SCANLOOP_LABEL_PASSWORD_FILE", str(tmp_path / "gone"))
    with pytest.raises(LabellingError, match="cannot be read"):
        store_address(None, "postgresql://db/labels")


def test_refusals_are_one_line_and_an_exit_code(run: Path, url: str) -> None:
    open_store(url).engine.dispose()
    result = shell("label", "close", "--by", "nobody", "--store", url)
    assert result.returncode == RoleError.exit_code == 14
    assert result.stderr.startswith("error: nobody with this name")
    for options in (("--budget", "ten"), ("--share", "3")):
        with pytest.raises(ConfigError):
            ran("publish", "--queue", run / "queue", "--store", url, *options)
    with pytest.raises(ConfigError, match="is no time"):
        ran("export", "--store", url, "--output", run / "labels", "--as-of", "yesterday")


@pytest.mark.parametrize("command", ["publish", "export", "close", "status"])
def test_each_commands_help_has_an_example(command: str) -> None:
    assert f"Example: scanloop label {command} " in ran(command, "--help")
