"""`scanloop predict`: ask a model server about image files, into a table."""

import os
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from scanloop.errors import ConfigError
from scanloop.replacing import locked
from scanloop.scoring.client import Certificates, Service, ask
from scanloop.scoring.gathered import Gathered
from scanloop.scoring.images import listed_images
from scanloop.scoring.tally import Tally
from scanloop.storage.patience import Patience

TOKEN_VARIABLE = "SCANLOOP_TOKEN"  # noqa: S105 - the variable's name, not a token

HELP = """Ask a model server about image files, folders of them, or globs; write a row an image into a .csv or .parquet.

A run that was interrupted goes on when it is started again: what has a row in the output is not asked again. An image
that cannot be read gets a row that says so. The exit status is 0 where every image was read and answered, else 1; other
statuses name a wrong option or a server that refuses.
"""
EXAMPLES = """Examples:

scanloop predict --endpoint http://localhost:8080 --output predictions.csv slices/

scanloop predict --endpoint https://models.example.org --token-file token --ca-file ca.pem --output predictions.parquet
'studies/**/*.dcm'
"""


def predict(  # noqa: PLR0913  a keyword for each option
    images: Annotated[list[str], typer.Argument(help="Files, folders, globs in quotes")],
    *,
    endpoint: Annotated[str, typer.Option(help="Address of the server, http(s)://host:port")],
    output: Annotated[Path, typer.Option(help="Table of predictions, .csv or .parquet")],
    name: Annotated[str, typer.Option(help="Name of the model")] = "scanloop",
    protocol: Annotated[str, typer.Option(help="v2 (files as they are) or v1 (JSON)")] = "v2",
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images a request")] = 16,
    in_flight: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time")] = 4,
    token_file: Annotated[Path | None, typer.Option(help="File with the token; else SCANLOOP_TOKEN")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of who signs the server's certificate")] = None,
    client_certificate: Annotated[Path | None, typer.Option(help="PEM file, for a server that asks for one")] = None,
    client_key: Annotated[Path | None, typer.Option(help="PEM file of its key")] = None,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="For an answer")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, max=100, help="At a server that is busy or away")] = 8,
) -> None:
    """Ask, write rows as they come, and tell what it came to."""
    if protocol not in ("v1", "v2"):
        raise ConfigError(f"--protocol {protocol}: take v2 or v1")
    service = Service(
        endpoint,
        name,
        "v1" if protocol == "v1" else "v2",
        read_token(token_file),
        Certificates(ca_file, client_certificate, client_key),
        batch,
        in_flight,
        timeout_seconds,
        Patience(attempts=attempts, first_seconds=0.25, most_seconds=60.0),
    )
    if service.token and endpoint.startswith("http://") and not _is_local(endpoint):
        typer.echo("warning: the token goes over plain http; take https", err=True)
    paths = listed_images(images)
    with locked(output):
        tally = fill(service, paths, Gathered(output))
    for line in tally.lines():
        typer.echo(line)
    if not tally.is_whole:
        raise typer.Exit(1)


def fill(service: Service, paths: list[Path], gathered: Gathered) -> Tally:
    """Give every image a row that has none."""
    wanted = [path for path in paths if str(path) not in gathered.known]
    tally = Tally(kept=len(paths) - len(wanted))
    try:
        with tqdm(total=len(wanted), desc="predict", unit="image", mininterval=1) as bar:
            for _, row in ask(service, wanted):
                tally.count(row)
                if row is not None:
                    gathered.add(row)
                bar.update()
    finally:
        gathered.finish()
    return tally


def read_token(token_file: Path | None) -> str | None:
    """The token in a file, else in SCANLOOP_TOKEN; None where there is neither.

    Raises:
        ConfigError: The file cannot be read, or is empty.
    """
    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {token_file}: cannot be read ({error})") from error
    if not token:
        raise ConfigError(f"--token-file {token_file}: the file is empty")
    return token


def _is_local(endpoint: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")
