"""`scanloop label`: labels by people, from a queue to the artifact `labels`."""

import json
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scanloop import label_errors_command, label_files_command, label_serve_command
from scanloop.config import LabelConfig
from scanloop.errors import ConfigError
from scanloop.label_options import ConfigOption, StoreOption, opened, section
from scanloop.point_in_time import moment_of

if TYPE_CHECKING:
    from scanloop.labelling.store import Store

label = typer.Typer(
    help="Labels by people: publish a queue, read, look how far it is, export. The store is SQLite or PostgreSQL.",
    no_args_is_help=True,
)

label.command("errors", epilog=label_errors_command.EXAMPLES)(label_errors_command.errors)
label.add_typer(label_files_command.label_studio, name="label-studio")
label.add_typer(label_files_command.csv, name="csv")
label.add_typer(label_serve_command.reader, name="reader")
label.command("serve", epilog=label_serve_command.SERVE_EXAMPLES)(label_serve_command.serve)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON")]


@label.command(
    epilog="Example: scanloop label publish --queue runs/brain/queue --store sqlite:///labels.db --double-reading share"
)
def publish(
    *,
    queue: Annotated[Path, typer.Option(help="Artifact of acquire")],
    catalog: Annotated[Path | None, typer.Option(help="Artifact of ingest; 'catalog' beside the queue")] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    double_reading: Annotated[
        str | None, typer.Option(help="Read more than once: none, all, share, or disagreement of model and reader")
    ] = None,
    readings: Annotated[int | None, typer.Option(help="Readings of such an image, 2 to 9")] = None,
    share: Annotated[float | None, typer.Option(help="Part of the images that 'share' draws")] = None,
    budget: Annotated[str | None, typer.Option(metavar="EUR", help="Most that the readings cost together")] = None,
) -> None:
    """Make a queue's images tasks, and close the wave before; the same queue twice is as once."""
    from scanloop.labelling.publishing import publish_queue

    wanted = section(config, double_reading=double_reading, readings=readings, share=share)
    images = queue.parent / "catalog" if catalog is None else catalog
    with opened(store, wanted, may_be_new=True) as labels:
        found = publish_queue(labels, queue, images, wanted, None if budget is None else euros(budget))
    if not found.is_new:
        kept = "; its budget and readings stay: a curator raises a budget on the page" if budget else ""
        typer.echo(f"wave {found.wave} was published from this queue before: {found.tasks} images{kept}")
        return
    typer.echo(f"wave {found.wave}: {found.tasks} images to read, {found.left_out} of the queue left out")
    if found.passed:
        typer.echo(
            f"{found.passed} of them passed the limit, which allowed {found.limit} more annotations "
            f"(total {wanted.total_limit}, a quarter {wanted.quarter_limit or 'no limit'})"
        )


@label.command(epilog="Example: scanloop label export --store sqlite:///labels.db --output runs/brain/labels")
def export(
    *,
    output: Annotated[Path, typer.Option(help="Folder of the labels, for example RUN/labels")],
    store: StoreOption = None,
    config: ConfigOption = None,
    as_of: Annotated[str | None, typer.Option(help="Time, for example 2026-03-31T12:00:00Z; now by default")] = None,
) -> None:
    """Write the labels as they stood at a time: the artifact that pseudo-label and retrain learn from."""
    from scanloop.labelling.export import export as export_labels

    with opened(store, section(config)) as labels:
        found = export_labels(labels, output, None if as_of is None else moment_of(as_of))
    typer.echo(f"{output}: {found.answered} images read of {found.queued} asked for, EUR {found.price_eur:.2f}")


@label.command(epilog="Example: scanloop label close --by clara --store sqlite:///labels.db")
def close(
    *,
    by: Annotated[str, typer.Option(help="Name of a curator")],
    store: StoreOption = None,
    config: ConfigOption = None,
) -> None:
    """Close the open wave: nothing more is handed out; images that lack readings count with those at hand."""
    from scanloop.labelling.waves import close_wave

    with opened(store, section(config)) as labels:
        number = close_wave(labels, by)
    typer.echo("no wave is open" if number is None else f"wave {number} is closed")


@label.command(epilog="Example: scanloop label status --store sqlite:///labels.db --quality runs/brain/evaluation")
def status(
    *,
    store: StoreOption = None,
    config: ConfigOption = None,
    quality: Annotated[
        list[Path] | None,
        typer.Option(help="Queue, evaluation or pseudo-labels with a model's probabilities: consensus, readers"),
    ] = None,
    propose: Annotated[int, typer.Option(min=0, help="Images to propose for another reading, at most")] = 20,
    report: Annotated[Path | None, typer.Option(help="Folder for quality.parquet and quality.json")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far the wave is, what was spent, how far readers agree, and how good they are."""
    from scanloop.labelling.quality import measure_quality, write_quality

    if report is not None and not quality:
        raise ConfigError("--report holds what --quality finds: say where a model's probabilities are")
    wanted = section(config)
    with opened(store, wanted) as labels:
        found = overview(labels, wanted)
        if quality:
            consensus, found["quality"] = measure_quality(labels, quality, propose)
            if report is not None:
                write_quality(report, consensus, found["quality"])
    if as_json:
        typer.echo(json.dumps(found, indent=2, sort_keys=True))
        return
    console = Console(soft_wrap=True)
    for table in tables(found):
        console.print(table)


def overview(store: "Store", config: LabelConfig) -> dict[str, Any]:
    """What `status` tells: the wave, annotations against their limits, agreement."""
    from scanloop.labelling.agreement import measure_agreement
    from scanloop.labelling.limits import used
    from scanloop.labelling.progress import progress

    wave, agreement = progress(store, ""), measure_agreement(store)
    with store.reading() as session:
        spent = used(session, store.clock())
    shown = None if wave is None else {key: value for key, value in asdict(wave).items() if "my" not in key}
    if shown is not None:
        del shown["mine"]
    return {
        "wave": shown,
        "annotations": {
            "total": spent.total, "total_limit": config.total_limit,
            "quarter": spent.quarter, "quarter_limit": config.quarter_limit,
        },
        "agreement": asdict(agreement),
    }  # fmt: skip


def tables(found: dict[str, Any]) -> list[Table]:
    """What `overview` found, to be printed."""
    wave, counts, agreement = found["wave"], found["annotations"], found["agreement"]
    about = Table(title="no wave yet" if wave is None else f"wave {wave['wave']}", title_justify="left")
    about.add_column("what")
    about.add_column("value", justify="right")
    if wave is not None:
        about.add_row("state", "open" if wave["is_open"] else "closed")
        about.add_row("images read", f"{wave['read']} of {wave['tasks']}")
        about.add_row("images begun", str(wave["begun"]))
        about.add_row("waiting for an adjudicator", str(wave["disputed"]))
        for name in ("budget", "spent", "held"):
            about.add_row(f"{name} EUR", f"{wave[f'{name}_cents'] / 100:.2f}")
    about.add_row("annotations in all", _of_limit(counts["total"], counts["total_limit"]))
    about.add_row("annotations of this quarter", _of_limit(counts["quarter"], counts["quarter_limit"]))
    about.add_row(f"Fleiss' kappa (n={agreement['images']} images)", _number(agreement["fleiss"]))
    readers = Table(title="readers", title_justify="left")
    for name in ("reader", "readings", "unsure", "bad image", "withdrawn", "read with others", "agreed"):
        readers.add_column(name, justify="left" if name == "reader" else "right")
    for one in agreement["readers"]:
        readers.add_row(one["name"], *(str(value) for name, value in one.items() if name != "name"))
    pairs = Table(title="pairs of readers", title_justify="left")
    for name in ("readers", "images", "equal answers", "Cohen's kappa"):
        pairs.add_column(name, justify="left" if name == "readers" else "right")
    for one in agreement["pairs"]:
        pairs.add_row(" / ".join(one["readers"]), str(one["images"]), f"{one['share']:.2f}", _number(one["kappa"]))
    return [about, readers, *([pairs] if agreement["pairs"] else []), *_quality(found.get("quality"))]


def _quality(found: dict[str, Any] | None) -> list[Table]:
    if found is None:
        return []
    size = f"{found['images']} images, {found['read_by_several']} of them read by several, {found['left_out']} left out"
    table = Table(title=f"quality of readers (advice; {size})", title_justify="left")
    for name in ("reader", "readings", "read with others", "quality", "agreement with consensus"):
        table.add_column(name, justify="left" if name == "reader" else "right")
    for one in found["readers"]:
        counts = (str(one[name]) for name in ("readings", "shared"))
        table.add_row(one["reader"], *counts, _number(one["quality"]), _number(one["agreement"]))
    again = Table(title="worth another reading, most first", title_justify="left")
    again.add_column("slice", overflow="fold")
    for slice_id in found["read_again"]:
        again.add_row(slice_id)
    return [table, again]


def euros(text: str) -> Decimal:
    """An amount that was typed."""
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ConfigError(f"{text!r} is no amount of euros; write for example 1500.00") from error


def _of_limit(count: int, limit: int | None) -> str:
    return f"{count}" if limit is None else f"{count} of {limit}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
