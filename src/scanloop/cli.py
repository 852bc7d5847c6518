"""The command line: one command a step, on the artifacts of a run's folder."""

import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scanloop import (
    __version__,
    external_command,
    forget_command,
    predict_command,
    score_command,
    study_command,
    unpromote_command,
)
from scanloop.config import STEPS
from scanloop.config_file import load_config
from scanloop.errors import ConfigError, ScanloopError
from scanloop.export_command import export
from scanloop.features_command import features
from scanloop.label_command import label
from scanloop.plan_command import EXAMPLES, help_text, plan
from scanloop.search_command import EXAMPLES as SEARCH_EXAMPLES
from scanloop.search_command import search
from scanloop.storage.address import is_url
from scanloop.storage_command import storage

app = typer.Typer(
    help="Semi-supervised medical imaging, one command a step. Whole pipelines: python -m pipelines --help",
    no_args_is_help=True,
    add_completion=False,
)

ARTIFACT_OF = {
    "ingest": "catalog",
    "validate": "validation",
    "pretrain": "encoder",
    "embed": "embeddings",
    "triage": "triage",
    "acquire": "queue",
    "oracle": "labels",
    "pseudo_label": "pseudo_labels",
    "retrain": "bundle",
    "evaluate": "evaluation",
    "promote": "promotion",
    "detect_drift": "drift",
    "account": "account",
    "report": "report",
}
"""Folder that each step fills, in a run's folder."""

SUMMARIES = {
    "ingest": "Read an archive into a catalog.",
    "validate": "Check the catalog against its expectations.",
    "pretrain": "Train an encoder on unlabelled slices, or take given weights.",
    "embed": "Turn every slice into a vector.",
    "triage": "Project and cluster the vectors.",
    "acquire": "Queue the images worth their label's price (--name next_queue: with the labels bought since).",
    "oracle": "Answer the queue from hidden labels.",
    "pseudo_label": "Propose pseudo-labels and promote those that may count.",
    "retrain": "Train and calibrate the classifier (--name baseline: on labels alone).",
    "evaluate": "Measure the model on its hold-out, and predict every image.",
    "promote": "Decide whether the model becomes champion.",
    "detect_drift": "Compare today's confidence with the hold-out's.",
    "account": "Add up what the run spent.",
    "report": "Tell the run on one page.",
}

LEFT_OUT = {"baseline": "pseudo_labels", "queue": "labels"}
"""Optional input that a folder does without: the baseline has no pseudo-labels, the queue comes before its labels."""

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML with a section a step; examples in configs/")]
RunOption = Annotated[
    Path, typer.Option("--run", help="Folder of the run; the step's inputs stand there by their names")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override, for example embed.batch_size=32")]
NameOption = Annotated[str, typer.Option("--name", help="Folder that the step fills, where it is not the usual one")]


def _command(step: str) -> Callable[..., None]:
    def command(
        config: ConfigOption, run: RunOption, name: NameOption = ARTIFACT_OF[step], overrides: SetOption = None
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        section = load_config(config, tuple(overrides or ())).section(step)
        function = getattr(importlib.import_module(f"scanloop.steps.{step}"), step)
        function(section, **_inputs(function, run, name), output=run / name)

    command.__doc__ = SUMMARIES[step]
    return command


def _inputs(function: Callable[..., Any], run: Path, name: str) -> dict[str, Path]:
    """Artifacts that a step reads: those it needs, and those optional ones that stand in the run's folder."""
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("config", "output"):
            continue
        needed = parameter.default is inspect.Parameter.empty
        wanted = needed or ((run / parameter.name).is_dir() and parameter.name != name)
        if wanted and parameter.name != LEFT_OUT.get(name):
            found[parameter.name] = run / parameter.name
    return found


for _step in STEPS:
    _example = f"Example: scanloop {_step.replace('_', '-')} --config configs/demo.yaml --run runs/demo"
    app.command(_step.replace("_", "-"), epilog=_example)(_command(_step))


app.add_typer(storage, name="storage")
app.add_typer(label, name="label")
app.add_typer(export, name="export")
app.add_typer(features, name="features")
app.command("plan", help=help_text(), epilog=EXAMPLES)(plan)
app.command("search", epilog=SEARCH_EXAMPLES)(search)
app.command("forget", help=forget_command.HELP, epilog=forget_command.EXAMPLES)(forget_command.forget)
app.command("unpromote", help=unpromote_command.HELP, epilog=unpromote_command.EXAMPLES)(unpromote_command.unpromote)
app.command("predict", help=predict_command.HELP, epilog=predict_command.EXAMPLES)(predict_command.predict)
app.command("score", help=score_command.HELP, epilog=score_command.EXAMPLES)(score_command.score_images)
app.command("study", help=study_command.HELP, epilog=study_command.EXAMPLES)(study_command.study)
app.command("validate-external", help=external_command.HELP, epilog=external_command.EXAMPLES)(
    external_command.validate_external
)


@app.command(epilog="Example: scanloop check configs/demo.yaml")
def check(config: Path) -> None:
    """Say whether a configuration is right, or every fault in it."""
    values = load_config(config)
    source = getattr(values.ingest.source, "path", None)
    if source and not is_url(source) and not Path(source).exists():
        raise ConfigError(f"{config}: ingest.source.path: {source} does not exist")
    typer.echo(f"{config}: right")


@app.command()
def version() -> None:
    """Version of scanloop."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; a refusal is one message and its exit code."""
    try:
        app()
    except ScanloopError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
