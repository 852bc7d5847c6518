"""The pipelines by name, what each needs, and their compiled form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler

from pipelines.improve import improve
from pipelines.intake import intake
from pipelines.loop import loop
from pipelines.watch import watch
from scanloop.config import STEPS, RunConfig

PIPELINES: dict[str, Any] = {"intake": intake, "improve": improve, "watch": watch, "loop": loop}
COMPILED = Path(__file__).parent / "compiled"
IMPORTED = {
    "improve": ("catalog", "encoder", "embeddings", "triage", "labels"),
    "watch": ("catalog", "evaluation", "current"),
}
"""Artifacts that a pipeline takes from an earlier run, by pipeline."""


@dataclass(frozen=True)
class Request:
    """A pipeline with the arguments of one run.

    Attributes:
        pipeline: Key of `PIPELINES`.
        arguments: Its arguments.
    """

    pipeline: str
    arguments: dict[str, Any]


def request(pipeline: str, config: RunConfig, artifacts: dict[str, str], settings: dict[str, str]) -> Request:
    """Arguments of a run: the sections that the pipeline reads, artifacts of earlier runs, and settings.

    Args:
        pipeline: Key of `PIPELINES`.
        config: Where the sections come from.
        artifacts: URI of each artifact in `IMPORTED`.
        settings: "run_folder", "code", "source_version"; those that the pipeline lacks are left out.
    """
    parameters = PIPELINES[pipeline].pipeline_spec.root.input_definitions.parameters
    parts = [f"{number}/{config.embed.parts}" for number in range(1, config.embed.parts + 1)]
    sections = {name: config.section(name).model_dump_json() for name in (*STEPS, "label") if name in parameters}
    given: dict[str, Any] = {**artifacts, **settings, "embed_parts": parts}
    wanted = {name: value for name, value in given.items() if name in parameters}
    return Request(pipeline, sections | wanted)


def compile_all(folder: Path = COMPILED) -> list[Path]:
    """Write every pipeline as YAML; what is written is what is deployed, and what the tests compare."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.yaml" for name in PIPELINES]
    for path, pipeline in zip(paths, PIPELINES.values(), strict=True):
        compiler.Compiler().compile(pipeline, str(path))
    return paths
