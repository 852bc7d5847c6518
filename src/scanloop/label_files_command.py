"""`scanloop label label-studio` and `scanloop label csv`: the open batch out to other tools, their readings back in."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanloop.artifacts import read_json
from scanloop.errors import ConfigError, LabellingError
from scanloop.label_options import ConfigOption, StoreOption, opened, section

if TYPE_CHECKING:
    from scanloop.labelling.importing import Foreign, Imported
    from scanloop.labelling.store import Store

label_studio = typer.Typer(
    help="Read in Label Studio: only the open wave's images that lack readings leave.", no_args_is_help=True
)
csv = typer.Typer(
    help="Read in a spreadsheet: a table of the open wave's images, filled in and read back.", no_args_is_help=True
)

CatalogOption = Annotated[Path, typer.Option(help="Artifact of ingest that the queue was made from")]
OutputOption = Annotated[Path, typer.Option(help="Folder to fill")]
MOST_SHOWN, MOST_PLACES = 50, 5


@label_studio.command(
    "export",
    epilog="Example: scanloop label label-studio export --catalog runs/brain/catalog --output files/wave1 --projects 2",
)
def export_projects(
    *,
    catalog: CatalogOption,
    output: OutputOption,
    store: StoreOption = None,
    config: ConfigOption = None,
    projects: Annotated[int, typer.Option(min=1, max=9, help="Blinded projects; 2 for double reading")] = 1,
    image_url: Annotated[
        str | None, typer.Option(help="What images' names are put after; Label Studio's local files by default")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Queue, evaluation or pseudo-labels: SHOWS annotators what the model says")
    ] = None,
) -> None:
    """Write images, the labelling configuration and the tasks of each project."""
    from scanloop.labelling.batch import open_batch
    from scanloop.labelling.label_studio import export_projects as export
    from scanloop.labelling.predicted import model_probabilities

    with opened(store, section(config)) as labels:
        batch = open_batch(labels)
    said = None if predictions is None else model_probabilities(predictions, len(batch.classes))
    version = "" if predictions is None else f"scanloop {str(read_json(predictions / 'artifact.json')['key'])[:12]}"
    counts = export(
        batch, catalog, output, projects=projects, image_url=image_url, predictions=said, model_version=version
    )
    if said is not None:
        shown = sum(one.slice_id in said for one in batch.tasks)
        typer.echo(f"annotators see what the model says of {shown} of {len(batch.tasks)} images: not blind")
    for number, count in enumerate(counts, start=1):
        typer.echo(f"{output / f'project-{number}.json'}: {count} images of wave {batch.wave}")


@label_studio.command(
    "import", epilog="Example: scanloop label label-studio import export.json --reader anna@example.org=anna"
)
def import_projects(
    *,
    file: Annotated[Path, typer.Argument(help="Label Studio's export, format JSON")],
    readers: Annotated[
        list[str] | None, typer.Option("--reader", help="ANNOTATOR=READER, by e-mail or number; else names are equal")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
) -> None:
    """Add the export's readings; the same file again adds nothing."""
    from scanloop.labelling.label_studio import read_export

    if wrong := [one for one in readers or () if not all(one.partition("="))]:
        raise ConfigError(f"--reader {wrong[0]}: write ANNOTATOR=READER")
    names = dict(one.split("=", 1) for one in readers or ())
    with opened(store, section(config)) as labels:
        _report(_added(labels, read_export(file, names), "label studio"))


@csv.command("export", epilog="Example: scanloop label csv export --catalog runs/brain/catalog --output reading/wave1")
def export_table(
    *, catalog: CatalogOption, output: OutputOption, store: StoreOption = None, config: ConfigOption = None
) -> None:
    """Write tasks.csv, a row for each reading that is lacking, and the images."""
    from scanloop.labelling.batch import open_batch
    from scanloop.labelling.csv_files import export_table as export

    with opened(store, section(config)) as labels:
        batch = open_batch(labels)
    typer.echo(
        f"{output / 'tasks.csv'}: {export(batch, catalog, output)} readings of wave {batch.wave} to be filled in"
    )


@csv.command("import", epilog="Example: scanloop label csv import reading/wave1/tasks.csv")
def import_table(
    *,
    file: Annotated[Path, typer.Argument(help="CSV with the columns task, reader and answer")],
    store: StoreOption = None,
    config: ConfigOption = None,
) -> None:
    """Add the readings of a filled table; the same file again adds nothing."""
    from scanloop.labelling.csv_files import read_table

    with opened(store, section(config)) as labels:
        _report(_added(labels, read_table(file), "csv"))


def _added(store: "Store", readings: "Iterable[Foreign]", source: str) -> "Imported":
    from scanloop.labelling.importing import import_readings

    return import_readings(store, readings, source)


def _report(found: "Imported") -> None:
    """Say what became of a file, and what has to be mended.

    Raises:
        LabellingError: Every reading was refused.
    """
    typer.echo(f"{found.added} readings added, {found.known} known before, {len(found.refused)} refused")
    if not found.refused:
        return
    table = Table(title="refused", title_justify="left")
    table.add_column("where")
    table.add_column("why", overflow="fold")
    places: dict[str, list[str]] = {}
    for place, why in found.refused:
        places.setdefault(why, []).append(place)
    for why, where in [*places.items()][:MOST_SHOWN]:
        more = f" and {len(where) - MOST_PLACES} more" if len(where) > MOST_PLACES else ""
        table.add_row("; ".join(where[:MOST_PLACES]) + more, why)
    Console(soft_wrap=True).print(table)
    if len(places) > MOST_SHOWN:
        typer.echo(f"and {len(places) - MOST_SHOWN} further reasons")
    if not found.added and not found.known:
        raise LabellingError("no reading of this file could be added")
