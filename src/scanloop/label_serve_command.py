"""`scanloop label serve` and `scanloop label reader`: the clinicians' page, and who may use it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scanloop.errors import ConfigError
from scanloop.label_options import ConfigOption, StoreOption, opened, section

SERVE_EXAMPLES = """Examples:

scanloop label serve --store sqlite:///labels.db --catalog runs/demo/catalog --plain-http

scanloop label serve --store postgresql://scanloop@host/labels --settings page.yaml --host 0.0.0.0
"""
READER_EXAMPLES = """Examples:

scanloop label reader add anna --store sqlite:///labels.db

scanloop label reader add carl --role curator --password-file carl.txt --store sqlite:///labels.db
"""

reader = typer.Typer(help="Who reads: add somebody, disable or enable them.", no_args_is_help=True)


def serve(
    *,
    catalog: Annotated[list[Path] | None, typer.Option(help="Catalog of a published queue; repeat for several")] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    settings: Annotated[Path | None, typer.Option(help="YAML of the page's settings; docs/labelling.md")] = None,
    guidelines: Annotated[Path | None, typer.Option(help="Annotation guidelines in Markdown")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at; 127.0.0.1 by default")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8080 by default")] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Cookies without https; on this machine alone (127.0.0.1)")
    ] = False,
) -> None:
    """Serve the clinicians' page: images to read, disputes to decide, and the wave for its curator."""
    import uvicorn

    from scanloop.labelling.address import store_address
    from scanloop.labelling.app.application import make_app
    from scanloop.labelling.app.settings import load_settings
    from scanloop.labelling.store import open_store

    given: dict[str, Any] = {
        "store": store_address(store, section(config).store), "catalogs": tuple(catalog or ()),
        "guidelines": guidelines, "host": host, "port": port, "secure_cookies": False if plain_http else None,
    }  # fmt: skip
    page = load_settings(settings, given)
    labels = open_store(page.store.get_secret_value(), may_be_new=False)
    app = make_app(labels, page)
    typer.echo(f"http{'s' if page.certificate else ''}://{page.host}:{page.port}, until Ctrl-C")
    try:
        uvicorn.run(
            app, host=page.host, port=page.port, proxy_headers=False, server_header=False, log_level="warning",
            ssl_certfile=page.certificate, ssl_keyfile=page.certificate_key, timeout_keep_alive=65,
            timeout_graceful_shutdown=5,
        )  # fmt: skip
    except SystemExit as error:  # uvicorn's way to say that it did not start; why, it has logged
        raise ConfigError(
            f"the page cannot listen at {page.host}:{page.port}; --port and --host choose another place"
        ) from error
    finally:
        labels.engine.dispose()


@reader.command(epilog=READER_EXAMPLES)
def add(
    name: str,
    *,
    role: Annotated[
        str | None,
        typer.Option(
            help="reader, adjudicator or curator; each may do what those before it may; as it is, or reader, by default"
        ),
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is the password")] = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="For who logs in through a proxy")] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a reader, or give one another role or password; the password is asked for where no file is given."""
    from scanloop.labelling.passwords import refuse_weak, set_password
    from scanloop.labelling.readers import add_reader, role_of

    if not no_password and password_file is None:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = None if password_file is None else _first_line(password_file, "the password")
    if password is not None:
        refuse_weak(password)
    with opened(store, section(config), may_be_new=True) as labels:
        add_reader(labels, name, role)
        if password is not None:
            set_password(labels, name, password)
        typer.echo(f"{name}: {role_of(labels, name)}")


@reader.command(epilog="Example: scanloop label reader disable anna --store sqlite:///labels.db")
def disable(name: str, *, store: StoreOption = None, config: ConfigOption = None) -> None:
    """Log a reader out everywhere and refuse them from now on; what they read stays."""
    from scanloop.labelling.readers import disable_reader

    with opened(store, section(config)) as labels:
        disable_reader(labels, name)
    typer.echo(f"{name}: disabled")


@reader.command(epilog="Example: scanloop label reader enable anna --store sqlite:///labels.db")
def enable(name: str, *, store: StoreOption = None, config: ConfigOption = None) -> None:
    """Let a reader who was disabled read again."""
    from scanloop.labelling.readers import enable_reader

    with opened(store, section(config)) as labels:
        enable_reader(labels, name)
    typer.echo(f"{name}: enabled")


def _first_line(file: Path, what: str) -> str:
    try:
        with file.open(encoding="utf-8") as text:
            line = text.readline(10_000).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {what} cannot be read ({type(error).__name__})") from error
    if not line:
        raise ConfigError(f"{file}: its first line is empty; {what} stands there")
    return line
