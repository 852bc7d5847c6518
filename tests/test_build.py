import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy_step
from toy_step import ToySummary, files_of, log_of, toy

from scanloop.artifacts import read_json, write_json
from scanloop.build import error_path, read_key, read_seconds, read_summary
from scanloop.config import OracleConfig
from scanloop.errors import ArtifactError
from scanloop.liveness import OWNER_VARIABLE, process_identity

CONFIG = OracleConfig(seed=1)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run" / "promotion"


def start(output: Path, seed: int = 1, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, toy_step.__file__, str(seed), str(output)]
    return subprocess.Popen(command, env=os.environ | environment)


def owned_by(owner: subprocess.Popen[bytes]) -> str:
    name = process_identity(owner.pid)
    assert name.startswith(str(owner.pid))
    return name


def wait_for_bodies(output: Path, bodies: int) -> None:
    deadline = time.monotonic() + 30
    while len(log_of(output)) < bodies:
        assert time.monotonic() < deadline, "the step never began"
        time.sleep(0.05)


def given_labels(folder: Path, key: str) -> Path:
    write_json(folder / "artifact.json", {"key": key})
    return folder


def test_the_second_call_finds_the_artifact_and_returns_the_same_summary(output: Path) -> None:
    first = toy(CONFIG, output=output)
    before = files_of(output, exempt=True)
    assert toy(CONFIG, output=output) == first == ToySummary(1, CONFIG.as_of)
    assert log_of(output) == ["began"]
    assert files_of(output, exempt=True) == before
    assert read_summary(output) == {"rows": 1, "as_of": CONFIG.as_of}


@pytest.mark.parametrize("changed", [{"seed": 2}, {"as_of": "2027-01-01T00:00:00Z"}])
def test_a_changed_config_value_runs_the_step_again(output: Path, changed: dict[str, Any]) -> None:
    toy(CONFIG, output=output)
    toy(CONFIG.model_copy(update=changed), output=output)
    assert log_of(output) == ["began", "began"]


def test_a_changed_input_key_runs_the_step_again_and_an_equal_one_does_not(output: Path, tmp_path: Path) -> None:
    toy(CONFIG, labels=given_labels(tmp_path / "labels", "one"), output=output)
    toy(CONFIG, labels=given_labels(tmp_path / "elsewhere", "one"), output=output)
    assert log_of(output) == ["began"]
    toy(CONFIG, labels=given_labels(tmp_path / "labels", "two"), output=output)
    assert log_of(output) == ["began", "began"]


def test_an_input_that_is_given_or_not_makes_another_key(output: Path, tmp_path: Path) -> None:
    toy(CONFIG, output=output)
    toy(CONFIG, labels=given_labels(tmp_path / "labels", "one"), output=output)
    assert len(log_of(output)) == 2


def test_a_changed_source_file_runs_the_step_again(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "archive.tar"
    source.write_bytes(b"one")
    monkeypatch.setenv("TOY_SOURCE", str(source))
    for content in (b"one", b"one", b"two"):
        source.write_bytes(content)
        toy(CONFIG, output=output)
    assert len(log_of(output)) == 2


def test_the_folder_of_a_source_counts_for_nothing(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = []
    for folder in ("one", "two"):
        source = tmp_path / folder / "archive.tar"
        source.parent.mkdir()
        source.write_bytes(b"bytes")
        monkeypatch.setenv("TOY_SOURCE", str(source))
        monkeypatch.chdir(source.parent)
        for spelling in (str(source), "archive.tar"):
            monkeypatch.setenv("TOY_SOURCE", spelling)
            toy(CONFIG.model_copy(update={"as_of": spelling}), output=output)  # the configuration names the source
            records.append((output / "artifact.json").read_bytes())
    assert len(log_of(output)) == 1
    assert len(set(records)) == 1
    assert json.loads(records[0])["config"]["as_of"] == "archive.tar"


def test_changed_code_runs_the_step_again(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(CONFIG, output=output)
    monkeypatch.setattr("scanloop.build.code_digest", lambda module: f"another {module}")
    toy(CONFIG, output=output)
    assert len(log_of(output)) == 2


@pytest.mark.parametrize("name", ["deep/table.parquet", "promotion.json", "artifact.json"])
def test_a_missing_file_runs_the_step_again(output: Path, name: str) -> None:
    toy(CONFIG, output=output)
    before = files_of(output)
    (output / name).unlink()
    toy(CONFIG, output=output)
    assert len(log_of(output)) == 2
    assert files_of(output) == before


def test_a_file_of_another_size_runs_the_step_again(output: Path) -> None:
    toy(CONFIG, output=output)
    (output / "deep" / "table.parquet").write_bytes(b"torn")
    toy(CONFIG, output=output)
    assert len(log_of(output)) == 2


def test_an_exempt_file_that_the_kind_must_hold_is_missed_as_well(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanloop.artifacts.KINDS", {"promotion": ("promotion.json", "page.html")})
    toy(CONFIG, output=output)
    (output / "page.html").unlink()
    toy(CONFIG, output=output)
    assert len(log_of(output)) == 2
    assert (output / "page.html").exists()


def test_a_failing_body_leaves_no_artifact_but_its_reason_and_its_checkpoints(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_MODE", "fail")
    with pytest.raises(RuntimeError, match="the disk said no"):
        toy(CONFIG, output=output)
    assert not output.exists()
    note = json.loads(error_path(output).read_text())
    assert note == {"error": "RuntimeError", "message": "RuntimeError: the disk said no", "exit_code": 1}
    monkeypatch.delenv("TOY_MODE")
    toy(CONFIG, output=output)
    assert log_of(output) == ["began", "continued"]
    assert not error_path(output).exists()


def test_a_refusal_keeps_its_own_exit_code_in_the_note(output: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        toy(CONFIG, labels=tmp_path / "absent", output=output)
    note = json.loads(error_path(output).read_text())
    assert (note["error"], note["exit_code"]) == ("ArtifactError", ArtifactError.exit_code)


def test_a_failure_keeps_the_artifact_of_before(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(CONFIG, output=output)
    before = files_of(output)
    monkeypatch.setenv("TOY_MODE", "fail")
    with pytest.raises(RuntimeError):
        toy(OracleConfig(seed=2), output=output)
    assert files_of(output) == before


def test_a_killed_body_continues_from_its_checkpoints(output: Path, tmp_path: Path) -> None:
    assert start(output, TOY_MODE="die").wait() == 9
    assert not output.exists()
    toy(CONFIG, output=output)
    assert log_of(output) == ["began", "continued"]
    undisturbed = tmp_path / "other" / "promotion"
    toy(CONFIG, output=undisturbed)
    assert files_of(output) == files_of(undisturbed)


def test_checkpoints_of_another_key_are_thrown_away(output: Path) -> None:
    assert start(output, TOY_MODE="die").wait() == 9
    toy(OracleConfig(seed=2), output=output)
    assert log_of(output) == ["began", "began"]


@pytest.mark.parametrize("moved", ["promotion", ".promotion.partial"])
def test_a_rename_that_fails_is_repaired_by_the_next_call_without_running_the_body(
    output: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    toy(CONFIG, output=output)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == moved:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        toy(OracleConfig(seed=2), output=output)
    monkeypatch.setattr(Path, "rename", rename)
    assert toy(OracleConfig(seed=2), output=output) == ToySummary(1, CONFIG.as_of)
    assert len(log_of(output)) == 2
    assert {path.name for path in output.parent.iterdir()} == {"promotion", ".promotion.lock", toy_step.LOG}


def test_a_kill_before_any_file_operation_ends_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, toy_step.__file__, "sweep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_two_processes_at_once_run_the_body_once(output: Path) -> None:
    both = [start(output, TOY_SECONDS="3") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log_of(output) == ["began"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_step_whose_owner_is_killed_ends_and_its_successor_finishes(output: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    orphan = start(output, TOY_SECONDS="600", **{OWNER_VARIABLE: owned_by(owner)})
    wait_for_bodies(output, 1)
    waiting = start(output, TOY_SECONDS="600", **{OWNER_VARIABLE: owned_by(owner)})
    owner.send_signal(signal.SIGKILL)
    assert orphan.wait(timeout=3) != 0
    owner.wait()
    assert waiting.wait(timeout=10) != 0, "one that waits for the lock, or starts late, ends as well"
    toy(CONFIG, output=output)
    assert log_of(output) == ["began", "continued"]


def test_a_step_that_starts_after_its_owner_died_touches_nothing(output: Path) -> None:
    toy(CONFIG, output=output)
    before = files_of(output, exempt=True)
    owner = subprocess.Popen(["sleep", "600"])
    name = owned_by(owner)
    owner.kill()
    owner.wait()
    assert start(output, seed=2, **{OWNER_VARIABLE: name}).wait() != 0
    assert files_of(output, exempt=True) == before
    assert log_of(output) == ["began"]


def test_a_later_process_with_the_number_of_the_dead_owner_is_not_the_owner(output: Path) -> None:
    assert start(output, **{OWNER_VARIABLE: f"{os.getpid()}:1"}).wait() != 0
    assert not output.exists()


def test_seconds_of_killed_attempts_are_counted(output: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    killed = start(output, TOY_SECONDS="600", **{OWNER_VARIABLE: owned_by(owner)})
    wait_for_bodies(output, 1)
    time.sleep(2.5)
    killed.kill()
    killed.wait()
    owner.kill()
    owner.wait()
    toy(CONFIG, output=output)
    assert 2 <= read_seconds(output) < 10


def test_two_builds_differ_in_exempt_files_alone(tmp_path: Path) -> None:
    builds = [tmp_path / name / "promotion" for name in ("one", "two")]
    for build in builds:
        toy(CONFIG, output=build)
    first, second = (files_of(build, exempt=True) for build in builds)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == {"run.json", "page.html"}
    record = read_json(builds[0] / "artifact.json")
    assert read_key(builds[0]) == record["key"]
    assert set(record["files"]) == {"deep/table.parquet", "promotion.json"}
    assert str(tmp_path) not in json.dumps(record)


def test_a_folder_of_other_files_or_of_another_kind_is_refused_and_stays(output: Path, tmp_path: Path) -> None:
    output.mkdir(parents=True)
    toy(OracleConfig(seed=1), output=output)
    (output.parent / "thesis").mkdir()
    (output.parent / "thesis" / "thesis.txt").write_text("years")
    with pytest.raises(ArtifactError, match="files that no step wrote"):
        toy(OracleConfig(seed=1), output=output.parent / "thesis")
    assert [one.name for one in (output.parent / "thesis").iterdir()] == ["thesis.txt"]
    record = json.loads((output / "artifact.json").read_text())
    (output / "artifact.json").write_text(json.dumps(record | {"kind": "catalog"}))
    before = files_of(output)
    with pytest.raises(ArtifactError, match="holds catalog, which"):
        toy(OracleConfig(seed=2), output=output)
    assert files_of(output) == before
