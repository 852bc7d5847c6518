import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from components.base import IMAGE
from pipelines.__main__ import app
from pipelines.cluster import submit as module
from pipelines.cluster.submit import Target, package, submit, tasks_of
from pipelines.registry import IMPORTED, PIPELINES, Request, request
from scanloop.config import STEPS
from scanloop.config_file import load_config
from scanloop.errors import ConfigError, SubmissionError
from scanloop.provenance import file_digest, library_digest

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
REGISTRY = ("--set", "promote.tracking_uri=https://mlflow.example")
OTHER = "europe-docker.example/scanloop-python:9"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen on which no digest is broken, whatever the size of the one at hand."""
    monkeypatch.setattr("pipelines.__main__.console", Console(soft_wrap=True, width=240, height=50))


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever submits where nothing may be submitted is found out."""
    monkeypatch.setattr("pipelines.__main__.submit", lambda *_: pytest.fail("something was submitted"))


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def dry_run(*options: str) -> Result:
    arguments = ["submit", "--config", str(DEMO), "--dry-run", *options]
    return CliRunner().invoke(app, arguments, env={"TERM": "dumb"})


def named(uris: dict[str, str]) -> list[str]:
    return [word for name, uri in uris.items() for word in ("--artifact", f"{name}={uri}")]


def test_a_dry_run_prints_every_task_and_argument_and_submits_nothing() -> None:
    result = dry_run(*REGISTRY)
    assert result.exit_code == 0, result.exception
    assert "not submitted" in result.output
    for task in tasks_of(package("loop", IMAGE)):
        assert f"task {task} " in result.output
    for step in STEPS:
        assert f" {step} " in result.output
    assert library_digest() in result.output


@pytest.mark.parametrize("pipeline", IMPORTED)
def test_what_continues_a_run_is_given_the_uri_of_each_artifact(pipeline: str) -> None:
    """In a cluster an artifact's URI ends in its own task and number, not in a folder that all of them share."""
    uris = {name: f"s3://kfp/{number}/output?a=b" for number, name in enumerate(IMPORTED[pipeline])}
    result = dry_run("--pipeline", pipeline, *REGISTRY, *named(uris))
    assert result.exit_code == 0, result.exception
    shown = [line.split("│")[1:3] for line in result.output.splitlines() if "s3://" in line]
    assert {name.strip(): uri.strip() for name, uri in shown} == uris


@pytest.mark.parametrize("pipeline", IMPORTED)
def test_artifacts_that_are_missing_are_named_with_an_example(pipeline: str) -> None:
    result = dry_run("--pipeline", pipeline, "--artifact", "catalog=s3://kfp/1")
    assert isinstance(result.exception, ConfigError)
    assert f"missing: {', '.join(IMPORTED[pipeline][1:])}; " in str(result.exception)
    assert "--artifact catalog=s3://" in str(result.exception)


def test_every_fault_in_the_artifacts_is_in_one_message() -> None:
    given = {"catalog": "s3://1", "current": "s3://2", "drift": "s3://3", "evaluation": ""}
    result = dry_run("--pipeline", "watch", *named(given), "--artifact", "catalog=s3://4", "--artifact", "s3://5")
    assert isinstance(result.exception, ConfigError)
    for words in (
        "not NAME=URI: evaluation=, s3://5;",
        "unknown: drift;",
        "given twice: catalog;",
        "missing: evaluation;",
    ):
        assert words in str(result.exception)
    assert "current is the evaluation to watch" in str(result.exception)


def test_an_artifact_for_a_pipeline_that_takes_none_is_refused() -> None:
    result = dry_run("--pipeline", "intake", "--artifact", "catalog=s3://1")
    assert isinstance(result.exception, ConfigError)
    assert "unknown: catalog; intake takes nothing from an earlier run" in str(result.exception)


@pytest.mark.parametrize("options", [(), ("--set", "promote.tracking_uri=")])
@pytest.mark.parametrize("pipeline", ["loop", "improve"])
def test_a_registry_that_would_be_lost_with_its_pod_is_refused(pipeline: str, options: tuple[str, ...]) -> None:
    uris = {name: f"s3://kfp/{name}" for name in IMPORTED.get(pipeline, ())}
    result = dry_run("--pipeline", pipeline, *named(uris), *options)
    assert isinstance(result.exception, ConfigError)
    assert "--set promote.tracking_uri=https://" in str(result.exception)


@pytest.mark.parametrize("pipeline", ["intake", "watch"])
def test_what_promotes_nothing_needs_no_registry(pipeline: str) -> None:
    result = dry_run("--pipeline", pipeline, *named(dict.fromkeys(IMPORTED.get(pipeline, ()), "s3://x")))
    assert result.exit_code == 0, result.exception


def test_an_unknown_pipeline_names_those_that_there_are() -> None:
    result = dry_run("--pipeline", "lop")
    assert isinstance(result.exception, ConfigError)
    assert "intake, improve, watch, loop" in str(result.exception)


def test_the_archives_version_travels_so_that_a_grown_archive_is_read_again(tmp_path: Path) -> None:
    archive, config = tmp_path / "archive.npz", tmp_path / "run.yaml"
    archive.write_bytes(b"images")
    config.write_text(f"ingest: {{source: {{kind: npz, path: {archive}}}}}\n")
    arguments = ["submit", "--config", str(config), "--dry-run", *REGISTRY]
    result = CliRunner().invoke(app, arguments, env={"TERM": "dumb"})
    assert file_digest(archive) in result.output


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_image_is_put_into_every_step(pipeline: str) -> None:
    text = package(pipeline, OTHER)
    assert IMAGE not in text
    executors = yaml.safe_load(text)["deploymentSpec"]["executors"].values()
    images = [executor["container"]["image"] for executor in executors if "container" in executor]
    assert set(images) == {OTHER}
    assert package(pipeline, IMAGE).count(f"image: {IMAGE}") == len(images)


def test_a_missing_compiled_pipeline_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", tmp_path)
    with pytest.raises(SubmissionError, match="make compile"):
        package("loop", IMAGE)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_request_gives_every_required_argument_of_its_pipeline_and_no_other(pipeline: str) -> None:
    artifacts = {name: f"s3://run/{name}" for name in ("catalog", "encoder", "embeddings", "labels", "evaluation")}
    wanted = request(pipeline, load_config(DEMO), artifacts | {"current": "s3://now"}, {"code": "abc"})
    parameters = PIPELINES[pipeline].pipeline_spec.root.input_definitions.parameters
    required = {name for name, value in parameters.items() if not value.is_optional}
    assert required <= set(wanted.arguments) <= set(parameters)


def test_a_server_that_does_not_answer_is_one_line_soon(closed_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(SubmissionError) as error:
        submit(Request("watch", {}), Target(f"http://127.0.0.1:{closed_port}"))
    assert time.monotonic() - started < 20
    assert len(str(error.value).splitlines()) == 1
    assert f"http://127.0.0.1:{closed_port} did not take the run" in str(error.value)


def test_a_missing_token_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="absent"):
        submit(Request("watch", {}), Target("http://127.0.0.1:1", token_file=tmp_path / "absent"))


def test_the_token_goes_to_the_client_and_into_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_file, seen = tmp_path / "token", {}
    token_file.write_text("hush\n")

    class Refusing:
        def __init__(self, **options: Any) -> None:
            seen.update(options)

        def create_run_from_pipeline_package(self, path: str, **options: Any) -> SimpleNamespace:
            seen.update(options, text=Path(path).read_text())
            if seen["namespace"] is None:
                raise ValueError("403 Forbidden\nHTTP response headers: many")
            return SimpleNamespace(run_id="42")

    monkeypatch.setattr("kfp.client.Client", Refusing)
    target = Target("https://kfp.example/", image=OTHER, namespace="team", token_file=token_file)
    assert submit(Request("watch", {"code": "x"}), target) == "https://kfp.example/#/runs/details/42"
    assert seen["existing_token"] == "hush"
    assert seen["arguments"] == {"code": "x"}
    assert OTHER in seen["text"]
    with pytest.raises(SubmissionError) as error:
        submit(Request("watch", {}), Target("https://kfp.example/", token_file=token_file))
    assert str(error.value).count("\n") == 0
    assert "403 Forbidden" in str(error.value)
    assert "hush" not in str(error.value)
