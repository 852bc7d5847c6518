"""Decisions in Weights & Biases beside MLflow: the same names and figures, nothing else, and never in the way."""

import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chain import Chain
from promoted import EASY, client, decide, model_name, new_evaluation, no_looks, run_folder  # noqa: F401  fixtures
from pydantic import ValidationError
from wandb_server import wandb_server

from scanloop.artifacts import read_json
from scanloop.config import PromoteConfig
from scanloop.errors import ConfigError
from scanloop.provenance import file_digest
from scanloop.tracking import DIGEST_TAG, LOOKS

SECRET = "0123456789abcdef" * 2 + "01234567"
BLOCK = 32768


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """None of whoever runs the tests: no key, no server, no files in their home."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_ERROR_REPORTING", "false")):
        monkeypatch.setenv(name, value)
    yield
    if isinstance(sys.modules.get("wandb"), ModuleType) and hasattr(sys.modules["wandb"], "teardown"):
        sys.modules["wandb"].teardown()  # it reads its environment once in a process


def records(path: Path) -> Iterator[Any]:
    """What a run's file holds: LevelDB's log format, a W&B protobuf a record."""
    from wandb.proto import wandb_internal_pb2

    content, place, payload = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        payload += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            payload = b""
            yield record


def stored(folder: Path) -> list[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Header, config and summary of each run below a folder, without what W&B adds of its own."""
    found = []
    for path in sorted(folder.rglob("*.wandb")):
        kept = list(records(path))
        (run,) = [one.run for one in kept if one.HasField("run")]
        summary = {entry.key: entry.value_json for one in kept for entry in one.summary.update if entry.key}
        config = {entry.key: entry.value_json for entry in run.config.update}
        assert {one.WhichOneof("record_type") for one in kept} <= {
            "header", "run", "telemetry", "summary", "exit",
        }, "neither files nor output, history, statistics or facts of the machine"  # fmt: skip
        read = [{key: json.loads(value) for key, value in part.items() if key[0] != "_"} for part in (config, summary)]
        found.append((run, *read))
    return found


def mlflow_run(folder: Path, name: str) -> Any:
    experiment = client(folder).get_experiment_by_name(name)
    (run,) = client(folder).search_runs([experiment.experiment_id], f"tags.`{DIGEST_TAG}` != ''")
    return run


def test_a_decision_has_the_tags_and_metrics_of_its_run_in_mlflow_and_done_again_its_id(
    chain: Chain, folder: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name, "wandb_project": "loops"})
    decide(chain, folder, config, evaluation, f"{name}-1")
    ((run, tags, metrics),) = stored(tmp_path)
    twin = mlflow_run(folder, name)
    assert tags == {key: value for key, value in twin.data.tags.items() if not key.startswith("mlflow.")}
    assert metrics == pytest.approx(twin.data.metrics)
    assert metrics["promoted"] == 1
    assert (run.project, run.run_group, run.display_name) == ("loops", name, twin.info.run_name)
    assert run.run_id == tags[DIGEST_TAG] == file_digest(folder / f"{name}-1" / "promotion.json")
    assert (run.resume, run.host) == (True, "")
    decide(chain, folder, config, evaluation, f"{name}-2")
    again = {(one.run_id, *found.values(), *figures.values()) for one, found, figures in stored(tmp_path)}
    assert len(stored(tmp_path)) == 2
    assert len(again) == 1, "the same run with the same content"


def test_a_server_is_told_the_names_and_figures_and_nothing_else_and_the_second_time_the_same(
    chain: Chain, folder: Path, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name, "wandb_project": "loops"})
    with wandb_server() as told:
        for key, value in (
            ("WANDB_MODE", "online"), ("WANDB_BASE_URL", told.url), ("WANDB_API_KEY", SECRET),
            ("WANDB_DIR", str(tmp_path)),
        ):  # fmt: skip
            monkeypatch.setenv(key, value)
        for number in (1, 2):
            decide(chain, folder, config, evaluation, f"{name}-{number}")
    assert set(told.asked) == {"RunResumeStatus", "UpsertBucket", "file_stream", "CreateRunFiles"}
    twin = mlflow_run(folder, name)
    ((key, upserts),) = told.runs.items()
    assert key == twin.data.tags[DIGEST_TAG]
    tags = {key: value for key, value in twin.data.tags.items() if not key.startswith("mlflow.")}
    for variables in upserts:
        config_sent = {name: entry["value"] for name, entry in json.loads(variables["config"]).items()}
        assert {name: value for name, value in config_sent.items() if name[0] != "_"} == tags
        assert {variables.get(fact) for fact in ("host", "repo", "commit")} == {None}
        assert variables["program"] in (None, "scanloop")
    ((path, bodies),) = told.streamed.items()
    assert path == f"/files/me/loops/{key}/file_stream"
    assert {name for body in bodies for name in body.get("files", {})} == {"wandb-summary.json"}
    ends = [json.loads(body["files"]["wandb-summary.json"]["content"][-1]) for body in bodies if body.get("files")]
    for summary in ends:
        assert {name: value for name, value in summary.items() if name[0] != "_"} == pytest.approx(twin.data.metrics)
    assert "W&B" not in capfd.readouterr().err


def test_neither_the_decision_nor_its_key_knows_of_the_second_tracker(
    chain: Chain, folder: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    alone = EASY.model_copy(update={"model_name": name})
    decide(chain, folder, alone, evaluation, f"{name}-1")
    decide(chain, folder, alone.model_copy(update={"wandb_project": "loops"}), evaluation, f"{name}-2")
    first, second = (folder / f"{name}-{number}" for number in (1, 2))
    for file in ("promotion.json", "artifact.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    assert len(stored(tmp_path)) == 1


def test_a_server_that_cannot_be_reached_changes_nothing_and_the_decision_is_kept_to_be_sent(
    chain: Chain, folder: Path, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with socket.socket() as closed:  # bound and not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        for key, value in (
            ("WANDB_MODE", "online"), ("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}"),
            ("WANDB_API_KEY", SECRET), ("WANDB_INIT_TIMEOUT", "2"), ("WANDB_DIR", str(tmp_path / "kept")),
        ):  # fmt: skip
            monkeypatch.setenv(key, value)
        (tmp_path / "kept").mkdir()
        evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
        config = EASY.model_copy(update={"model_name": name, "wandb_project": "loops"})
        summary = decide(chain, folder, config, evaluation, f"{name}-1")
    assert summary.decision == "promoted"
    assert read_json(folder / f"{name}-1" / "promotion.json")["decision"] == "promoted"
    (line,) = [one for one in capfd.readouterr().err.splitlines() if "W&B" in one or "wandb" in one]
    assert line.startswith("promote: W&B did not take the decision (")
    assert "connection refused" in line
    kept = Path(line.rpartition("wandb sync ")[2])
    ((run, tags, metrics),) = stored(kept)
    twin = mlflow_run(folder, name)
    assert (run.run_id, tags[DIGEST_TAG]) == (twin.data.tags[DIGEST_TAG],) * 2
    assert metrics == pytest.approx(twin.data.metrics)
    everything = [path for root in (tmp_path, folder / f"{name}-1") for path in root.rglob("*") if path.is_file()]
    assert len(everything) > 5
    assert [path for path in everything if SECRET.encode() in path.read_bytes()] == []


def test_a_tracker_that_fails_on_disk_too_is_told_and_leaves_the_decision_in_mlflow(
    chain: Chain, folder: Path, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fails(**_: Any) -> None:
        raise OSError("No space left\non device")

    monkeypatch.setattr("wandb.init", fails)
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name, "wandb_project": "loops"})
    assert decide(chain, folder, config, evaluation, f"{name}-1").decision == "promoted"
    assert mlflow_run(folder, name).data.metrics["promoted"] == 1
    assert "the decision is in MLflow alone, W&B failed (No space left on device;" in capfd.readouterr().err


@pytest.mark.parametrize("missing", ["not installed", "a folder of W&B's files in its place"])
def test_without_wandb_it_is_refused_before_anything_is_judged_and_the_way_out_is_said(
    missing: str, chain: Chain, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None if missing == "not installed" else ModuleType("wandb"))
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name, "wandb_project": "loops"})
    with pytest.raises(ConfigError, match=r"pip install 'scanloop\[wandb\]'"):
        decide(chain, folder, config, evaluation, f"{name}-1")
    looks = client(folder).get_experiment_by_name(LOOKS)
    assert looks is None or client(folder).search_runs([looks.experiment_id]) == []


def test_without_a_project_wandb_is_not_even_imported(
    chain: Chain, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name})
    assert decide(chain, folder, config, evaluation, f"{name}-1").decision == "promoted"


@pytest.mark.parametrize("project", ["", "a/b", "a b", "x" * 129])
def test_a_name_that_no_project_can_have_is_refused(project: str) -> None:
    with pytest.raises(ValidationError):
        PromoteConfig(wandb_project=project)
