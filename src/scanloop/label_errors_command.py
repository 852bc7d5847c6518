"""`scanloop label errors`: given labels that a run's model contradicts, as a queue to be read again."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from scanloop.artifacts import read_json, read_table
from scanloop.errors import ConfigError
from scanloop.faults import listed
from scanloop.sections.labelling import LabelErrorsConfig

EXAMPLES = "Example: scanloop label errors --run runs/brain --output runs/brain/reading --most 50"


def errors(
    *,
    run: Annotated[Path, typer.Option(help="Folder of a run that has a baseline")],
    output: Annotated[Path | None, typer.Option(help="Folder of the queue; RUN/label_errors by default")] = None,
    most: Annotated[int | None, typer.Option(help="Images to queue, at most")] = None,
    price: Annotated[float | None, typer.Option(metavar="EUR", help="Of a reading")] = None,
    budget: Annotated[float | None, typer.Option(metavar="EUR", help="Of all readings together")] = None,
    show: Annotated[int, typer.Option(min=0, help="Rows to print")] = 10,
) -> None:
    """Queue labelled training images whose label the model contradicts; held-out ones are only listed."""
    from scanloop.labelling.label_errors import label_errors

    given = {"most": most, "price_per_label_eur": price, "budget_eur": budget}
    try:
        config = LabelErrorsConfig.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(listed("scanloop label errors", error)) from error
    queue = run / "label_errors" if output is None else output
    found = {name: run / name for name in ("evaluation", "labels") if (run / name).is_dir()}
    label_errors(config, catalog=run / "catalog", baseline=run / "baseline", **found, output=queue)
    _print(read_table(queue, "label_errors.parquet"), read_json(queue / "queue.json"), show)
    typer.echo(f"publish it: scanloop label publish --queue {queue} --catalog {run / 'catalog'}")


def _print(found: pd.DataFrame, queue: dict[str, Any], show: int) -> None:
    console, learnt = Console(soft_wrap=True), found["split"] == "train"
    for part, rows in (("training", found[learnt]), ("held out (listed, never queued)", found[~learnt])):
        table = Table(title=f"{part}: {len(rows)} labels contradict the model", title_justify="left")
        for name in ("slice", "given", "model", "probability of given"):
            table.add_column(name, justify="right" if name.startswith("p") else "left")
        for row in rows.head(show).to_dict("records"):
            said = f"{row['probability_of_given']:.3f}"
            table.add_row(row["slice_id"][:16], row["given"], row["model"], said)
        console.print(table)
    typer.echo(f"{queue['labels']} of {queue['pool']} labelled images queued, EUR {queue['price_eur']:.2f}")
