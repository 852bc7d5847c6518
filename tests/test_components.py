import ast
import importlib
import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import PLANS, Chain

from components.base import IMAGE
from scanloop import __version__
from scanloop.artifacts import check_artifact
from scanloop.build import read_summary
from scanloop.cli import ARTIFACT_OF
from scanloop.config import STEPS, AccountConfig, DetectDriftConfig, ReportConfig, Section, ValidateConfig
from scanloop.errors import ArtifactError
from scanloop.provenance import library_digest
from scanloop.steps.placement import placed

FOLDER = Path(__file__).parents[1] / "components"
PARTS = {"embed_part"}
"""Components of a part of a step, which fills no artifact of its own."""

FILES = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem not in {"__init__", "base"}}


@dataclass
class Port:
    """What KFP hands to a component in the place of an artifact."""

    path: str


def function_of(name: str) -> ast.FunctionDef:
    found = [node for node in ast.parse(FILES[name].read_text()).body if isinstance(node, ast.FunctionDef)]
    (function,) = found
    return function


def component(name: str) -> Any:
    return getattr(importlib.import_module(f"components.{name}"), name)


def test_step_component_file_command_and_section_share_one_name() -> None:
    assert set(FILES) - PARTS - {"publish"} == set(STEPS) == set(ARTIFACT_OF)  # its command is `scanloop label publish`
    for name in FILES:
        assert function_of(name).name == name
        step = getattr(importlib.import_module(f"scanloop.steps.{name}"), name)
        assert step.__name__ == name
        assert component(name).component_spec.name == name.replace("_", "-")


@pytest.mark.parametrize("name", FILES)
def test_a_component_has_six_statements_at_most(name: str) -> None:
    body = function_of(name).body
    assert isinstance(body[0], ast.Expr), "a docstring comes first"
    assert len(body) - 1 <= 6
    assert not [
        node for node in ast.walk(function_of(name)) if isinstance(node, ast.If | ast.For | ast.While | ast.Try)
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_components_docstring_describes_every_parameter_and_no_other(name: str) -> None:
    function = function_of(name)
    docstring = ast.get_docstring(function) or ""
    described = [line.split(":")[0].strip() for line in docstring.partition("Args:\n")[2].splitlines() if line.strip()]
    assert described == [argument.arg for argument in function.args.args]


@pytest.mark.parametrize("name", FILES)
def test_a_description_reaches_kfp_for_every_parameter(name: str) -> None:
    pipeline = "intake" if name == "publish" else "loop"
    compiled = yaml.safe_load((FOLDER.parent / "pipelines" / "compiled" / f"{pipeline}.yaml").read_text())
    ports = compiled["components"][f"comp-{name.replace('_', '-')}"]["inputDefinitions"]
    described = ports["parameters"] | ports.get("artifacts", {})
    assert [port for port, facts in described.items() if not facts.get("description")] == []
    assert set(described) == set(component(name).component_spec.inputs)


@pytest.mark.parametrize("path", [*FILES.values(), FOLDER / "base.py"], ids=lambda path: path.stem)
def test_no_component_postpones_its_annotations_because_kfp_cannot_compile_that(path: Path) -> None:
    assert "from __future__ import annotations" not in path.read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_component_has_a_port_for_every_input_of_its_step(name: str) -> None:
    step = getattr(importlib.import_module(f"scanloop.steps.{name}"), name)
    ports = {argument.arg for argument in function_of(name).args.args}
    assert set(inspect.signature(step).parameters) <= ports
    optional = {key for key, value in inspect.signature(step).parameters.items() if value.default is None}
    spec = component(name).component_spec
    assert {key for key, value in spec.inputs.items() if value.optional and key in optional} == optional


def test_every_component_runs_in_the_image_of_this_version() -> None:
    assert IMAGE.endswith(f":{__version__}")
    assert "python" in IMAGE
    for name in FILES:
        assert component(name).component_spec.implementation.container.image == IMAGE


def run_component(step: str, config: Section, folder: Path, inputs: dict[str, Path]) -> Port:
    """Run a component's function into a run's folder, as KFP's local runner does in a process of its own."""
    output = Port(str(folder / "where KFP would have it"))
    ports = {name: Port(str(path)) for name, path in inputs.items()}
    component(step).python_func(
        config=config.model_dump_json(), output=output, run_folder=str(folder), code=library_digest(), **ports
    )
    return output


SHORT: dict[str, tuple[Section, tuple[str, ...]]] = {
    "ingest": (PLANS["catalog"][1], ()),
    "validate": (ValidateConfig(seed=3), ("catalog",)),
    "account": (AccountConfig(), ("catalog", "queue", "labels")),
    "report": (ReportConfig(), ("catalog", "queue", "labels")),
    "detect_drift": (DetectDriftConfig(), ("evaluation",)),
}


@pytest.mark.parametrize("step", SHORT)
def test_a_component_runs_its_step_into_the_runs_folder(step: str, chain: Chain, tmp_path: Path) -> None:
    config, inputs = SHORT[step]
    output = run_component(step, config, tmp_path, chain.inputs(*inputs))
    assert output.path == str(tmp_path / ARTIFACT_OF[step]), "KFP is told where the artifact stands"
    check_artifact(tmp_path / ARTIFACT_OF[step], ARTIFACT_OF[step])


@pytest.mark.parametrize("artifact", [name for name in PLANS if name not in {"baseline", "catalog"}])
def test_a_component_hands_exactly_its_config_and_inputs_to_its_step(
    artifact: str, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other config or input would make another key: the step would run again instead of finding its artifact."""
    step, config, inputs = PLANS[artifact]
    made = chain[artifact]
    with caplog.at_level(logging.INFO, "scanloop"):
        output = run_component(step, config, chain.folder, chain.inputs(*inputs))
    assert Path(output.path) == made
    assert f"{step}: found in cache" in caplog.text


def test_account_is_told_what_an_earlier_run_paid(chain: Chain, tmp_path: Path) -> None:
    """The names are part of the key: the same artifacts, once made and once imported, are two accounts."""
    ports = {name: Port(str(path)) for name, path in chain.inputs("catalog", "queue").items()}
    for imported, made in (([], 2), (["catalog"], 1)):
        component("account").python_func(
            config=AccountConfig().model_dump_json(),
            output=Port("x"),
            imported=imported,
            run_folder=str(tmp_path),
            **ports,
        )
        assert read_summary(tmp_path / "account")["artifacts"] == made


def test_retrain_fills_the_folder_that_it_is_told(chain: Chain) -> None:
    ports = {name: Port(str(path)) for name, path in chain.inputs(*PLANS["baseline"][2]).items()}
    output = Port("elsewhere")
    made, config = chain["baseline"], PLANS["baseline"][1].model_dump_json()
    component("retrain").python_func(
        config=config, output=output, name="baseline", run_folder=str(made.parent), **ports
    )
    assert Path(output.path) == made


def test_in_the_cluster_an_artifact_stands_where_kfp_says() -> None:
    assert placed("/kfp/output", "", "catalog", "") == "/kfp/output"
    assert placed("/kfp/output", "/runs/one", "catalog", library_digest()) == "/runs/one/catalog"


def test_code_other_than_the_submitters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"the run was submitted from aaaaaaaaaaaa; build and push the image"):
        placed("/kfp/output", "", "catalog", "a" * 64)
    with pytest.raises(ArtifactError):
        component("ingest").python_func(config="{}", output=Port("x"), run_folder=str(tmp_path), code="other")
    assert list(tmp_path.iterdir()) == []
