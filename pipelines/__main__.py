"""Run, compile and submit the pipelines: `python -m pipelines --help`."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cluster.submit import (
    Target,
    artifacts_by_name,
    package,
    refuse_lost_registry,
    refuse_scattered_parts,
    submit,
    tasks_of,
)
from pipelines.local import run_locally, steps_of
from pipelines.registry import COMPILED, IMPORTED, PIPELINES, compile_all, request
from scanloop.config import RunConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError, ScanloopError, StorageError
from scanloop.label_options import StoreOption, opened
from scanloop.provenance import Source, library_digest, source_digest
from scanloop.storage.address import is_remote, local_path

app = typer.Typer(help="Run, compile and submit the pipelines.", no_args_is_help=True, add_completion=False)
console = Console(soft_wrap=True)
LONGEST_VALUE = 40

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML with a section a step; examples in configs/")]
PipelineOption = Annotated[str, typer.Option("--pipeline", help=", ".join(PIPELINES))]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override, for example pretrain.epochs=3; repeatable")
]


@app.command(epilog="Example: python -m pipelines run --config configs/demo.yaml --output runs/demo")
def run(
    config: ConfigOption,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/<name> by default")] = None,
    pipeline: PipelineOption = "loop",
    overrides: SetOption = None,
    artifacts: Annotated[
        Path | None,
        typer.Option("--from", help="Run whose artifacts improve and watch continue from; OUTPUT by default"),
    ] = None,
) -> None:
    """Run a pipeline here, through KFP's local runner; what was made before is found and not made again."""
    values = load_config(config, tuple(overrides or ()))
    _check(pipeline)
    folder = (output or Path("runs") / values.name).absolute()
    earlier = {name: str((artifacts or folder).absolute() / name) for name in IMPORTED.get(pipeline, ())}
    if pipeline == "watch":
        earlier = _watched(earlier, folder)
    started = time.time()
    console.print(f"{pipeline}: {config} -> {folder}")
    made = run_locally(request(pipeline, values, earlier, {"run_folder": str(folder)}), folder)
    _print_summary(folder, made, started)


@app.command("compile", epilog="Example: python -m pipelines compile")
def compile_(output: Annotated[Path, typer.Option(help="Folder for the YAML")] = COMPILED) -> None:
    """Compile every pipeline to the YAML that is deployed."""
    for path in compile_all(output):
        console.print(path)


@app.command(
    "submit",
    epilog="Example: python -m pipelines submit --config configs/demo.yaml --host https://kfp.example "
    "--set promote.tracking_uri=https://mlflow.example",
)
def submit_(
    config: ConfigOption,
    host: Annotated[str, typer.Option(help="URL of the KFP API")] = "http://localhost:8888",
    pipeline: PipelineOption = "loop",
    overrides: SetOption = None,
    image: Annotated[str, typer.Option(help="Image of every step")] = Target.image,
    namespace: Annotated[str | None, typer.Option(help="Namespace of a multi-user installation")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a bearer token")] = None,
    artifacts: Annotated[
        list[str] | None,
        typer.Option("--artifact", help="NAME=URI of an artifact that improve and watch continue from; repeatable"),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would run, and submit nothing")] = False,
) -> None:
    """Submit a compiled pipeline to Kubeflow Pipelines."""
    values = load_config(config, tuple(overrides or ()))
    _check(pipeline)
    earlier = artifacts_by_name(pipeline, artifacts or ())
    settings = {"code": library_digest(), "source_version": _source_version(values)}
    wanted = request(pipeline, values, earlier, settings)
    refuse_lost_registry(wanted)
    refuse_scattered_parts(wanted)
    if dry_run:
        _print_plan(wanted.pipeline, wanted.arguments, image, host)
        return
    console.print(submit(wanted, Target(host, image, namespace, token_file)))


@app.command(
    epilog="Example: python -m pipelines trigger --config configs/brain_mri.yaml --run runs/brain "
    "--store sqlite:///labels.db --every 300"
)
def trigger(
    config: ConfigOption,
    run_: Annotated[Path, typer.Option("--run", help="Run whose queue is read; improve continues in it")],
    store: StoreOption = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Artifact of triage before the archive grew: a fall of the ARI asks for a wave")
    ] = None,
    every: Annotated[float | None, typer.Option(min=1, help="Seconds between looks; one look by default")] = None,
    overrides: SetOption = None,
    host: Annotated[str | None, typer.Option(help="URL of the KFP API that takes the runs; here by default")] = None,
    image: Annotated[str, typer.Option(help="Image of every step, with --host")] = Target.image,
    namespace: Annotated[str | None, typer.Option(help="As in submit, with --host")] = None,
    token_file: Annotated[Path | None, typer.Option(help="As in submit, with --host")] = None,
    artifacts: Annotated[
        list[str] | None, typer.Option("--artifact", help="NAME=URI of what improve continues from, with --host")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Address below which labels are put, with --host")] = None,
) -> None:
    """Start improve when the wave is read to the end, and ask for a wave when clusters left the labels behind."""
    from pipelines.trigger import Here, Place, There, tick, watch_store

    values = load_config(config, tuple(overrides or ()))
    place: Place = Here(run_.absolute())
    if host is not None:
        if labels is None:
            raise ConfigError("--host needs --labels: an address that the cluster reads, such as s3://bucket/labels")
        given = artifacts_by_name("improve", [*(artifacts or ()), f"labels={labels}"])
        refuse_lost_registry(request("improve", values, given, {}))
        place = There(Target(host, image, namespace, token_file), given, labels, _source_version(values))
    triages = None if baseline is None else (baseline, run_ / "triage")
    with opened(store, values.label) as labels_store:
        watch_store(lambda: tick(labels_store, values, place, triages, console.print), every)


def _check(pipeline: str) -> None:
    if pipeline not in PIPELINES:
        raise ConfigError(f"no pipeline {pipeline!r}; there are {', '.join(PIPELINES)}")


def _watched(earlier: dict[str, str], folder: Path) -> dict[str, str]:
    """The reference comes from the earlier run; watched is the evaluation in the run's own folder, if any."""
    own = folder / "evaluation"
    return earlier | {"current": str(own) if own.is_dir() else earlier["evaluation"]}


def _source_version(values: RunConfig) -> str:
    """Digest of the archive; for one that only the cluster sees the time, so that it is read again."""
    path = getattr(values.ingest.source, "path", None)
    if path is None:
        return ""
    if not is_remote(path) and not local_path(path).exists():
        return str(int(time.time()))
    try:
        return source_digest(Source(path, getattr(values.ingest.source, "endpoint_url", None)))
    except StorageError:
        return str(int(time.time()))


def _print_plan(pipeline: str, arguments: dict[str, Any], image: str, host: str) -> None:
    table = Table(title=f"{pipeline} on {host}, image {image}: not submitted", title_justify="left")
    table.add_column("task or argument")
    table.add_column("value", overflow="fold")
    for task in tasks_of(package(pipeline, image)):
        table.add_row(f"task {task}", "")
    for name, value in arguments.items():
        table.add_row(name, str(value))
    console.print(table)


def _print_summary(folder: Path, artifacts: list[str], started: float) -> None:
    table = Table(title=f"{folder}, {time.time() - started:.0f} s", title_justify="left")
    for name, justify in (("artifact", "left"), ("seconds", "right"), ("", "left"), ("what came out", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, seconds, found, summary in steps_of(folder, artifacts, started):
        facts = ", ".join(f"{key} {_short(value)}" for key, value in summary.items() if _tells(value))
        table.add_row(name, f"{seconds:.1f}", "cached" if found else "", facts)
    console.print(table)
    if (report := folder / "report" / "report.html").exists():
        console.print(f"Report: {report}")


def _tells(value: object) -> bool:
    """Whether a value fits a line of the table: numbers, short words, not digests, lists or whole sentences."""
    return value is not None and not isinstance(value, dict | list) and len(str(value)) <= LONGEST_VALUE


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the command line; a refusal is one message and its exit code."""
    try:
        app()
    except ScanloopError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
