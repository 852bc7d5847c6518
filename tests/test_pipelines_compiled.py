import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.base import IMAGE
from pipelines.registry import COMPILED, IMPORTED, PIPELINES, compile_all, request
from scanloop.config import STEPS, RunConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder)
    return folder


@cache
def specification(pipeline: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPILED / f"{pipeline}.yaml").read_text())
    return found


def tasks(pipeline: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = specification(pipeline)["root"]["dag"]["tasks"]
    return found


def upstream(pipeline: str, task: str) -> set[str]:
    """Every task that must end before this one starts."""
    found: set[str] = set()
    waiting = [task]
    while waiting:
        for name in tasks(pipeline)[waiting.pop()].get("dependentTasks", []):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_compiled_pipeline_is_the_committed_one(compiled: Path, pipeline: str) -> None:
    committed = (COMPILED / f"{pipeline}.yaml").read_text()
    assert (compiled / f"{pipeline}.yaml").read_text() == committed, "run `make compile` and commit what changes"


def test_nothing_else_is_committed_as_compiled() -> None:
    assert {path.name for path in COMPILED.iterdir()} == {f"{pipeline}.yaml" for pipeline in PIPELINES}


def test_a_compilation_does_not_depend_on_the_hash_seed(compiled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "4242"}, capture_output=True, check=True)
    for pipeline in PIPELINES:
        assert (tmp_path / f"{pipeline}.yaml").read_bytes() == (compiled / f"{pipeline}.yaml").read_bytes()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_ends_with_account_and_then_report(pipeline: str) -> None:
    everything = set(tasks(pipeline))
    assert upstream(pipeline, "report") == everything - {"report"}
    assert upstream(pipeline, "account") == everything - {"account", "report"}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_account_is_told_of_exactly_what_was_imported(pipeline: str) -> None:
    inputs = tasks(pipeline)["account"]["inputs"]
    producers = {name: given["taskOutputArtifact"]["producerTask"] for name, given in inputs["artifacts"].items()}
    imported = sorted(name for name, task in producers.items() if task.startswith("importer"))
    assert inputs["parameters"]["imported"]["runtimeValue"]["constant"] == imported
    assert set(imported) == set(IMPORTED.get(pipeline, ())) - {"current"}


@pytest.mark.parametrize("pipeline", ["intake", "loop"])
def test_nothing_is_trained_before_the_catalog_is_validated(pipeline: str) -> None:
    for task in ("pretrain", "embed", "triage", "acquire"):
        assert "validate" in upstream(pipeline, task)


def test_the_loop_runs_every_step() -> None:
    executed = {name.replace("-2", "").replace("-", "_") for name in tasks("loop")}
    assert executed == set(STEPS) | {"for_loop_1"}


@pytest.mark.parametrize("pipeline", ["intake", "loop"])
def test_the_only_loop_is_that_over_parts_to_embed_which_are_given_and_come_before_embed(pipeline: str) -> None:
    """KFP fails on an empty loop and on one over a named output: this one runs over an argument that is never empty."""
    loop = tasks(pipeline)["for-loop-1"]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--embed_parts"}
    assert set(specification(pipeline)["components"]["comp-for-loop-1"]["dag"]["tasks"]) == {"embed-part"}
    assert "for-loop-1" in upstream(pipeline, "embed")
    parameters = specification(pipeline)["root"]["inputDefinitions"]["parameters"]
    assert parameters["embed_parts"]["defaultValue"] == ["1/1"]
    for parts in (1, 3):
        values = RunConfig(ingest={"source": {"kind": "synthetic"}}, embed={"parts": parts})
        given = request(pipeline, values, {}, {}).arguments["embed_parts"]
        assert given == [f"{number + 1}/{parts}" for number in range(parts)]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_task_is_skipped_silently(pipeline: str) -> None:
    """KFP skips a branch whose condition names a missing output without a word: there are no branches, and one loop."""
    text = (COMPILED / f"{pipeline}.yaml").read_text()
    for word in ("triggerPolicy", "artifactIterator", "condition"):
        assert f"{word}:" not in text
    assert text.count("parameterIterator:") == (pipeline in {"intake", "loop"})


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_task_runs_in_the_one_image_and_installs_nothing(pipeline: str) -> None:
    executors = specification(pipeline)["deploymentSpec"]["executors"]
    containers = [executor["container"] for executor in executors.values() if "container" in executor]
    assert {container["image"] for container in containers} == {IMAGE}
    assert "pip install" not in (COMPILED / f"{pipeline}.yaml").read_text()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_task_knows_the_run_folder_and_the_code(pipeline: str) -> None:
    """The code's digest is part of KFP's cache key, which knows nothing of the library."""
    for name, task in tasks(pipeline).items():
        if name.startswith("importer"):
            continue
        given = task["inputs"]["parameters"]
        if name == "for-loop-1":
            for parameter in ("code", "run_folder"):
                assert given[f"pipelinechannel--{parameter}"] == {"componentInputParameter": parameter}
            continue
        assert given["code"] == {"componentInputParameter": "code"}, name
        assert given["run_folder"] == {"componentInputParameter": "run_folder"}, name
