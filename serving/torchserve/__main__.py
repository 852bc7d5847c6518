"""Command line: TorchServe with a bundle in it, behind the server's guard."""

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from scanloop.bundle.torchserve import Archived, read_export
from scanloop.errors import ScanloopError
from serving.access import read_token
from serving.admission import Admission
from serving.guard import Guard
from serving.listening import DrainingServer, Listening, tls_of
from serving.torchserve.backend import Backend
from serving.torchserve.process import TorchServe, check_installed
from serving.torchserve.proxy import Proxy

logger = logging.getLogger("scanloop.serving")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

HELP = """\
Start TorchServe on loopback with an export in it, and serve its model behind a bearer token.

\b
Examples:
    scanloop export torchserve --bundle runs/demo/bundle --output runs/demo/torchserve
    python -m serving.torchserve --store runs/demo/torchserve --token-file token
"""


@app.command(help=HELP)
def serve(  # noqa: PLR0913, PLR0917 - an option each
    store: Annotated[Path, typer.Option(help="Folder that scanloop export torchserve wrote")],
    host: Annotated[str, typer.Option(help="Address to bind to")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token; else SCANLOOP_TOKEN")] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Ask nobody for a token; on loopback alone")] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file: serve TLS")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key")] = None,
    tls_clients: Annotated[Path | None, typer.Option(help="PEM file: demand client certificates signed by it")] = None,
    queue: Annotated[int, typer.Option(min=1, max=100_000, help="Requests that may wait; then 429")] = 64,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="For an answer; then 503")] = 30,
    start_seconds: Annotated[float, typer.Option(min=1, help="Longest time without a worker that predicts")] = 120,
    drain_seconds: Annotated[float, typer.Option(min=0, help="Answer on for so long after SIGTERM")] = 0,
) -> None:
    """Start TorchServe, wait for its workers, pass requests on, and end with what is under way answered."""
    tls = tls_of(tls_certificate, tls_key, tls_clients)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        check_installed()
        token = read_token(host, token_file, open_to_all=open_to_all, certified=tls_clients is not None)
        archived = read_export(store)
    except ScanloopError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    listening = Listening(host, port, None, token, tls, drain_seconds)
    process = TorchServe(store, archived.settings)
    try:
        backend = Backend(process, archived, timeout_seconds, start_seconds)
        server = _server(backend, archived, listening, queue, timeout_seconds)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_run(server, backend))
    finally:
        process.stop()
    raise typer.Exit(server.status)


def _server(
    backend: Backend, archived: Archived, listening: Listening, queue: int, read_seconds: float
) -> DrainingServer:
    most = int(archived.settings["max_request_size"])
    proxy = Proxy(backend, Admission(queue, max(4, queue // 8) * most), archived, most, read_seconds)
    return DrainingServer(Guard(proxy.application(), listening.token, most, archived.name), backend, listening)


async def _run(server: DrainingServer, backend: Backend) -> None:
    async def watch() -> None:
        try:
            await backend.watch()
        except Exception:
            logger.exception("TorchServe is looked after no more")
        server.status, server.should_exit = 1, True

    watching = asyncio.create_task(watch())
    try:
        await server.serve()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


if __name__ == "__main__":
    app()
