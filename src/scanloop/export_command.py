"""`scanloop export`: a bundle in the form that another server takes."""

from pathlib import Path
from typing import Annotated

import typer

from scanloop.bundle.engines.engine import ENGINES, PRECISIONS
from scanloop.errors import ConfigError

export = typer.Typer(help="Write a bundle in the form that another server takes.", no_args_is_help=True)


@export.command(epilog="Example: scanloop export torchserve --bundle runs/demo/bundle --output runs/demo/torchserve")
def torchserve(  # noqa: PLR0913, PLR0917 - an option each
    bundle: Annotated[Path, typer.Option(help="Folder of a bundle")],
    output: Annotated[Path, typer.Option(help="Folder that receives model-store/NAME.mar and config/")],
    name: Annotated[str, typer.Option(help="Name of the model in the URLs")] = "scanloop",
    engine: Annotated[str, typer.Option(help=f"Runs the network: {', '.join(ENGINES)}")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help=f"Of the convolutions: {', '.join(PRECISIONS)}")] = "float32",
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads a forward pass")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that hold the model")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Most requests a batch")] = 8,
    delay_ms: Annotated[int, typer.Option(min=1, max=1000, help="How long a batch waits to fill up")] = 5,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most images a request")] = 32,
    max_request_mib: Annotated[int, typer.Option(min=1, max=1024, help="Largest request body")] = 16,
    timeout_seconds: Annotated[int, typer.Option(min=1, help="Then a worker counts as stuck")] = 60,
    queue: Annotated[int, typer.Option(min=1, max=100_000, help="Requests that may wait")] = 128,
) -> None:
    """Archive and settings for TorchServe 0.12, which `python -m serving.torchserve` starts."""
    from scanloop.bundle.torchserve import Settings
    from scanloop.bundle.torchserve import export as write

    if engine not in ENGINES:
        raise ConfigError(f"--engine {engine}: take one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: take one of {', '.join(PRECISIONS)}")
    settings = Settings(
        name, engine, precision, threads, workers, batch, delay_ms, max_batch, max_request_mib, timeout_seconds, queue
    )
    typer.echo(write(bundle, settings, output))
