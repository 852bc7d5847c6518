"""`scanloop storage`: prepare a bucket, and carry folders of artifacts to a store and back."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanloop.config import StorageConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError
from scanloop.storage.lifecycle import PUBLIC_ACCESS, Change, Wanted, apply_changes, plan_changes
from scanloop.storage.s3 import S3Store
from scanloop.storage.store import open_store
from scanloop.storage.transfer import Transfer
from scanloop.storage.transfer import pull as pull_folder
from scanloop.storage.transfer import push as push_folder

storage = typer.Typer(
    help="Prepare a bucket; carry folders to a store and back. Credentials come from the environment or a profile.",
    no_args_is_help=True,
)

EndpointOption = Annotated[str | None, typer.Option(help="S3 server that is not Amazon's; also AWS_ENDPOINT_URL")]


@storage.command(epilog="Example: scanloop storage apply --bucket s3://archive --config configs/demo.yaml --dry-run")
def apply(
    bucket: Annotated[str, typer.Option(help="Address of the bucket, for example s3://archive")],
    config: Annotated[Path, typer.Option(help="YAML of a run; its section 'storage' says what the bucket is to be")],
    endpoint_url: EndpointOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing")] = False,
) -> None:
    """Version a bucket, close it to the public, encrypt it, and set its lifecycle rules; twice is as good as once."""
    store = open_store(bucket, endpoint_url)
    if not isinstance(store, S3Store) or store.address.key:
        raise ConfigError(f"--bucket {bucket}: give the address of a bucket, for example s3://archive")
    wanted = _wanted(load_config(config).storage)
    changes = plan_changes(store, wanted) if dry_run else apply_changes(store, wanted)
    Console().print(_table(bucket, changes, dry_run=dry_run))


@storage.command(epilog="Example: scanloop storage push runs/demo/bundle s3://archive/bundles/demo")
def push(folder: Path, url: str, endpoint_url: EndpointOption = None) -> None:
    """Put a folder into a store, its manifest last; what is there already is not sent again."""
    typer.echo(f"{url}: {_told(push_folder(folder, open_store(url, endpoint_url)))}")


@storage.command(epilog="Example: scanloop storage pull s3://archive/bundles/demo runs/fetched/bundle")
def pull(url: str, folder: Path, endpoint_url: EndpointOption = None) -> None:
    """Fetch a folder that was pushed; it appears when all of it is there and right."""
    typer.echo(f"{folder}: {_told(pull_folder(open_store(url, endpoint_url), folder))}")


def _wanted(config: StorageConfig) -> Wanted:
    return Wanted(
        versioning=config.versioning,
        block_public_access=tuple(
            name
            for name in PUBLIC_ACCESS
            if config.block_public_access and (config.block_public_acls or name != "BlockPublicAcls")
        ),
        encryption=config.encryption,
        raw=(config.raw_prefix, config.raw_after_days, config.raw_class) if config.raw_after_days else None,
        abort_multipart_days=config.abort_multipart_days,
        expire_noncurrent_days=config.expire_noncurrent_days,
        scratch=(config.scratch_prefix, config.expire_scratch_days) if config.expire_scratch_days else None,
    )


def _table(bucket: str, changes: list[Change], *, dry_run: bool) -> Table:
    table = Table(title=f"{bucket}{': nothing was changed' if dry_run else ''}", title_justify="left")
    for column in ("what", "found", "wanted", ""):
        table.add_column(column, overflow="fold")
    for change in changes:
        table.add_row(change.what, "-" if change.now is None else change.now, change.wanted, change.outcome)
    return table


def _told(transfer: Transfer) -> str:
    return f"{transfer.files} files, {transfer.bytes} bytes"
