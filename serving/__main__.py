"""Command line of the model server."""

import logging
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from scanloop.bundle.read import read_bundle
from scanloop.errors import ScanloopError
from serving.access import read_token

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

HELP = """\
Serve a bundle over HTTP, in KServe's V1 and V2 (Open Inference) protocols.

\b
Example:
    python -m serving --bundle runs/demo/bundle
    curl localhost:8080/v1/models/scanloop:predict -H 'Content-Type: application/json' \\
        -d '{"instances": [{"image": {"b64": "'$(base64 -w0 slice.jpg)'"}}]}'
"""


@app.command(help=HELP)
def serve(
    bundle: Annotated[Path, typer.Option(help="Directory that the step retrain wrote")],
    host: Annotated[str, typer.Option(help="Address to bind to; others than loopback need a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    name: Annotated[str, typer.Option(help="Name of the model in the URLs")] = "scanloop",
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token; else SCANLOOP_TOKEN")] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most images a request")] = 32,
    max_request_mib: Annotated[int, typer.Option(min=1, max=1024, help="Largest request body")] = 16,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads a forward pass")] = 1,
) -> None:
    """Read the bundle, check it against its reference slices, and serve it."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise typer.BadParameter("letters, digits, '.', '_' and '-' only", param_hint="--name")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    sys.argv[1:] = []  # kserve parses the command line when it is imported, and would take our options for its own
    try:
        token = read_token(host, token_file)
        model = read_bundle(bundle, threads)
    except ScanloopError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    from serving.server import Settings, serve

    logging.getLogger("scanloop.serving").info("%s: its reference check passed; digest %s", bundle, model.digest)
    serve(model, Settings(host, port, name, token, max_batch, max_request_mib * 2**20, threads))


if __name__ == "__main__":
    app()
