import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from scanloop import __version__
from scanloop.cli import ARTIFACT_OF, SUMMARIES, _inputs, app
from scanloop.config import STEPS
from scanloop.errors import ArtifactError, ConfigError
from scanloop.steps.acquire import acquire

COMMANDS = tuple(step.replace("_", "-") for step in STEPS)
SYNTHETIC = "ingest: {source: {kind: synthetic, slices: 20, size_px: 16, labelled: 8}, short_side_px: 16}\n"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from scanloop.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(SYNTHETIC)
    return path


def test_help_lists_a_command_for_every_step() -> None:
    text = invoke("--help").output
    for command in (*COMMANDS, "plan", "check", "version"):
        assert re.search(rf"^\W*{command}\s", text, re.MULTILINE), command


@pytest.mark.parametrize("command", [*COMMANDS, "plan", "check"])
def test_every_commands_help_has_an_example_of_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert re.search(rf"Examples?: scanloop {command} ", text)


@pytest.mark.parametrize("step", STEPS)
def test_the_example_of_each_command_names_a_configuration_that_is_here(step: str) -> None:
    (found,) = set(re.findall(r"configs/\w+\.yaml", invoke(step.replace("_", "-"), "--help").output))
    assert (Path(__file__).parents[1] / found).is_file()


def test_every_step_has_a_folder_and_a_summary() -> None:
    assert tuple(ARTIFACT_OF) == tuple(SUMMARIES) == STEPS


def test_the_version_is_the_packages() -> None:
    assert invoke("version").output.strip() == __version__


def test_check_says_that_a_configuration_is_right(config: Path) -> None:
    result = invoke("check", str(config))
    assert result.exit_code == 0
    assert "right" in result.output


def test_check_names_an_archive_that_is_not_there(tmp_path: Path, config: Path) -> None:
    config.write_text(f"ingest: {{source: {{kind: folder, path: {tmp_path / 'absent'}}}}}\n")
    result = invoke("check", str(config))
    assert isinstance(result.exception, ConfigError)
    assert "ingest.source.path" in str(result.exception)


def test_check_prints_three_mistakes_as_one_error_and_exits_with_2(config: Path) -> None:
    config.write_text(SYNTHETIC + "triage: {k_max: two, k: 1}\nembed: {batch_size: 0}\n")
    done = shell("check", str(config))
    assert done.returncode == ConfigError.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "3 faults" in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert [path for path in ("triage.k_max", "triage.k:", "embed.batch_size") if path not in done.stderr] == []


def test_a_step_without_its_catalog_is_one_clear_line_and_exits_with_6(tmp_path: Path, config: Path) -> None:
    done = shell("validate", "--config", str(config), "--run", str(tmp_path / "run"))
    assert done.returncode == ArtifactError.exit_code == 6
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert "catalog" in done.stderr
    assert "run the step that writes it first" in done.stderr


def test_a_step_runs_from_the_command_line_into_the_runs_folder(tmp_path: Path, config: Path) -> None:
    for _ in range(2):
        result = invoke("ingest", "--config", str(config), "--run", str(tmp_path / "run"), "--set", "seed=3")
        assert result.exit_code == 0, result.exception
    assert (tmp_path / "run" / "catalog" / "catalog.json").is_file()
    again = invoke("oracle", "--config", str(config), "--run", str(tmp_path / "run"))
    assert isinstance(again.exception, ArtifactError)
    assert str(tmp_path / "run" / "queue") in str(again.exception)


def test_the_queue_that_labels_answer_is_made_without_them_and_the_next_one_with_them(tmp_path: Path) -> None:
    """With its own answers as input the queue would be another one each time that the command is repeated."""
    needed = {name: tmp_path / name for name in ("catalog", "embeddings", "triage")}
    (tmp_path / "labels").mkdir()
    assert _inputs(acquire, tmp_path, "queue") == needed
    assert _inputs(acquire, tmp_path, "next_queue") == needed | {"labels": tmp_path / "labels"}


@pytest.mark.parametrize("command", ["ingest", "report"])
def test_a_missing_option_is_asked_for(command: str) -> None:
    result = invoke(command)
    assert result.exit_code == 2
    assert "--config" in result.output


def test_a_light_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from scanloop.cli import app; "
        "print([m for m in ('torch', 'mlflow', 'sklearn', 'matplotlib', 'great_expectations') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "[]"
