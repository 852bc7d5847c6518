"""Command line of the model server."""

import logging
import re
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.engines.engine import ENGINES, Precision
from scanloop.cores import usable_cores
from scanloop.errors import ScanloopError
from serving.access import read_token
from serving.admission import Admission
from serving.champion import Champion
from serving.listening import Listening, tls_of
from serving.loaded import Work
from serving.predictor import Limits, Predictor
from serving.sampling import sampler_of
from serving.sources import source_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

HELP = """\
Serve a bundle over HTTP and gRPC, in KServe's V1 and V2 (Open Inference) protocols.

\b
Examples:
    python -m serving --bundle runs/demo/bundle --open
    python -m serving --bundle runs/demo/bundle --token-file token --host 0.0.0.0 --engine openvino --precision bf16
    curl localhost:8080/v1/models/scanloop:predict -H 'Content-Type: application/json' \\
        -d '{"instances": [{"image": {"b64": "'$(base64 -w0 slice.jpg)'"}}]}'
"""


@app.command(help=HELP)
def serve(  # noqa: PLR0913, PLR0917 - an option each
    bundle: Annotated[str, typer.Option(help="Folder of a bundle, s3://bucket/prefix, or models:/NAME@ALIAS")],
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server, for models:/...")] = None,
    cache: Annotated[Path, typer.Option(help="Where fetched bundles are kept")] = Path(".serving-cache"),
    features: Annotated[Path | None, typer.Option(help="Feature repository: tells more of neighbours")] = None,
    reload_seconds: Annotated[float, typer.Option(min=0, help="Look for a new bundle so often; 0 never")] = 0,
    host: Annotated[str, typer.Option(help="Address to bind to")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of gRPC; 0 leaves it off")] = 0,
    name: Annotated[str, typer.Option(help="Name of the model in the URLs")] = "scanloop",
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token; else SCANLOOP_TOKEN")] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Ask nobody for a token; on loopback alone")] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file: serve TLS")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key")] = None,
    tls_clients: Annotated[Path | None, typer.Option(help="PEM file: demand client certificates signed by it")] = None,
    engine: Annotated[str, typer.Option(help=f"auto (the fastest here), {', '.join(ENGINES)}")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Of the convolutions")] = "float32",
    compile_torch: Annotated[bool, typer.Option(help="Let torch compile the network")] = False,
    threads: Annotated[int, typer.Option(min=0, max=256, help="Cores for the network; 0: all")] = 0,
    passes: Annotated[int, typer.Option(min=0, max=64, help="Forward passes at a time; 0: one a core")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Most images a forward pass")] = 8,
    delay_ms: Annotated[float, typer.Option(min=0, max=1000, help="How long a batch waits to fill up")] = 0,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most images a request")] = 32,
    max_request_mib: Annotated[int, typer.Option(min=1, max=1024, help="Largest request body")] = 16,
    queue: Annotated[int, typer.Option(min=1, max=100_000, help="Images that may wait; then 429")] = 128,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="For an answer; then 503")] = 30,
    sample_to: Annotated[Path | None, typer.Option(help="Folder for samples: hashes, embeddings, no pixels")] = None,
    sample_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the images that is sampled")] = 0.05,
    sample_key_file: Annotated[Path | None, typer.Option(help="Secret of the hashes; plain SHA-256 without")] = None,
    drain_seconds: Annotated[float, typer.Option(min=0, help="Answer on for so long after SIGTERM")] = 0,
) -> None:
    """Read the bundle, check it against its reference slices, and serve it."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise typer.BadParameter("letters, digits, '.', '_' and '-' only", param_hint="--name")
    tls = tls_of(tls_certificate, tls_key, tls_clients)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    cores = threads or usable_cores()
    wanted = Wanted(engine, precision, cores, passes or cores, compile_torch)
    work = Work(batch, delay_ms / 1e3, wanted.passes, usable_cores() + 1)
    try:
        token = read_token(host, token_file, open_to_all=open_to_all, certified=tls_clients is not None)
        sampler = sampler_of(sample_to, sample_share, sample_key_file)
        champion = Champion(name, source_of(bundle, tracking_uri, cache, wanted, work, features))
    except ScanloopError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    limits = Limits(max_batch, max_request_mib * 2**20, timeout_seconds, timeout_seconds)
    admission = Admission(queue, max(4, queue // 8) * limits.body_bytes)
    listening = Listening(host, port, grpc_port or None, token, tls, drain_seconds)
    sys.argv[1:] = []  # kserve parses the command line when it is imported, and would take our options for its own
    from serving.server import serve as run

    with nullcontext() if sampler is None else closing(sampler):
        status = run(Predictor(champion, admission, limits, sampler), listening, reload_seconds or None)
    raise typer.Exit(status)


if __name__ == "__main__":
    app()
