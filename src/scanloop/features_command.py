"""`scanloop features`: what is known of each slice and since when, in a Feast repository."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from scanloop.errors import ConfigError
from scanloop.point_in_time import moment_of

features = typer.Typer(
    help="What is known of each slice, and since when: a Feast repository beside the runs (docs/features.md).",
    no_args_is_help=True,
)

RepoOption = Annotated[Path, typer.Option("--repo", help="Folder of the feature repository")]


@features.command(epilog="Example: scanloop features apply --repo runs/features")
def apply(repo: RepoOption) -> None:
    """Make a repository, or bring its definitions to this version's; its settings file stays as it is."""
    from scanloop.features.repository import SETTINGS
    from scanloop.features.repository import apply as apply_definitions

    typer.echo(f"{repo}: {', '.join(apply_definitions(repo))}; settings in {SETTINGS}")


@features.command(epilog="Example: scanloop features write --repo runs/features --run runs/brain")
def write(
    repo: RepoOption,
    run: Annotated[Path, typer.Option("--run", help="Folder of a run; what stands in it is written")],
) -> None:
    """Add what a run's artifacts say to the offline store; the same artifacts again add nothing."""
    from scanloop.features.offline import write as write_facts

    if not (run / "catalog").is_dir():
        raise ConfigError(f"{run}: no run; give the folder that holds catalog, embeddings and what came after")
    typer.echo(_counts(repo, write_facts(repo, run), "new rows"))


@features.command(epilog="Example: scanloop features materialize --repo runs/features")
def materialize(repo: RepoOption) -> None:
    """Bring what is new into the online store; killed and started again, it continues."""
    from scanloop.features.materialize import materialize as bring_online

    typer.echo(_counts(repo, bring_online(repo), "rows brought online"))


@features.command(epilog="Example: scanloop features lookup --repo runs/features 3fa9c1...e07 9be2...")
def lookup(repo: RepoOption, slices: Annotated[list[str], typer.Argument(help="Ids of slices, whole")]) -> None:
    """Show what the online store knows of slices, as JSON; null for one that it does not know."""
    from scanloop.features.online import MOST_IDS, OnlineMetadata

    if len(slices) > MOST_IDS:
        raise ConfigError(f"{len(slices)} ids at once; at most {MOST_IDS}")
    typer.echo(json.dumps(dict(zip(slices, OnlineMetadata(repo).of(slices), strict=True)), indent=2))


TRAINING_SET_EXAMPLES = """Examples:

scanloop features training-set --repo runs/features --as-of 2026-03-31T12:00:00Z --output known.parquet

scanloop features training-set --repo runs/features --as-of 2026-03-31T12:00:00Z --labels runs/brain/labels
"""


@features.command("training-set", epilog=TRAINING_SET_EXAMPLES)
def training_set(
    repo: RepoOption,
    as_of: Annotated[str, typer.Option(help="Time, for example 2026-03-31T12:00:00Z; what came later is not known")],
    output: Annotated[Path | None, typer.Option(help="Parquet file of every labelled or promoted slice")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder for the artifact that retrain learns from")] = None,
) -> None:
    """Write what was known at a time: a point-in-time join, as a table or as the labels that retrain learns from."""
    from scanloop.features.labels import labels_at
    from scanloop.features.training_set import training_set as join
    from scanloop.features.training_set import write_set

    if (output is None) == (labels is None):
        raise ConfigError("say what to write: either --output FILE or --labels FOLDER")
    moment = moment_of(as_of)
    if moment > datetime.now(UTC):
        raise ConfigError(f"{as_of} is not over: what will be known by then is open")
    if labels is not None:
        found = labels_at(repo, moment, labels)
        typer.echo(f"{labels}: {found.answered} images answered by {as_of}, {found.labelled} with a label")
    elif output is not None:
        table = join(repo, moment)
        write_set(output, table)
        typer.echo(f"{output}: {len(table)} slices as known at {as_of}")


def _counts(repo: Path, rows: dict[str, int], what: str) -> str:
    told = ", ".join(f"{view} {count}" for view, count in rows.items() if count)
    return f"{repo}: {what}: {told or 'none'}"
