"""`scanloop study`: answer a question by a grid of trainings, with intervals; killed, it continues where it stood."""

import pkgutil
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from scanloop.errors import ConfigError
from scanloop.faults import listed

_FOLDER = Path(__file__).parent / "studies" / "questions"
NAMES = ", ".join(sorted(one.name.replace("_", "-") for one in pkgutil.iter_modules([str(_FOLDER)])))

HELP = f"""Answer a question by a grid of trainings: a table with mean, 95 % interval and n, and a figure.

Studies: {NAMES}. Each cell's result is kept in OUT/cells; the same command again measures only
those that are missing or whose settings, data or code changed. OUT/summary.md, .json and .png tell the result.
"""
EXAMPLES = (
    "Examples: scanloop study ssl-ablation --dataset breastmnist --out studies/ssl --data ../shared/data    "
    "scanloop study label-efficiency --dataset pneumoniamnist --fractions 1,2,5,10,20 --seeds 5 --out studies/labels "
    "--weights SqueezeNet.onnx --set epochs=30 --dry-run"
)


def study(  # noqa: PLR0913  # a command has an option for each
    name: Annotated[str, typer.Argument(help="Study, for example label-efficiency")],
    dataset: Annotated[str, typer.Option(help="Sets, with commas: breastmnist, pneumoniamnist, kermany")],
    out: Annotated[Path, typer.Option(help="Folder of the results")],
    fractions: Annotated[str, typer.Option(help="Labels used, in percent of the training part")] = "1,5,10",
    seeds: Annotated[int, typer.Option(help="Repetitions")] = 3,
    data: Annotated[Path | None, typer.Option(help="Folder below which the sets lie; else MedMNIST's download")] = None,
    weights: Annotated[
        str | None, typer.Option(help="SqueezeNet 1.1 with ImageNet weights: file, or 'imagenet'")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Setting, for example epochs=30")] = None,
    *,
    arms: Annotated[str | None, typer.Option(help="Ways that are tried, with commas; all of the study's")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and how long they may take")] = False,
) -> None:
    """Answer a question by a grid of trainings."""
    from scanloop.studies.grid import Grid
    from scanloop.studies.study import find_study
    from scanloop.studies.summary import write_summary

    found = find_study(name)
    given = {
        "datasets": _parts(dataset),
        "percents": _parts(fractions),
        "arms": _parts(arms or ""),
        "seeds": seeds,
        "data": data,
        "weights": weights,
    }
    grid = Grid(name, found, _request(given | _pairs(overrides or [])), out)
    missing = grid.missing()
    if dry_run:
        for key, cell in grid.cells.items():
            typer.echo(f"{'missing' if key in missing else 'done   '} {cell.name}")
        typer.echo(f"{len(missing)} of {len(grid.cells)} cells missing, about {grid.seconds_left() / 60:.1f} minutes")
        return
    grid.run()
    typer.echo(write_summary(out, grid.results(), found))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(given: list[str]) -> dict[str, str]:
    if wrong := [text for text in given if "=" not in text]:
        raise ConfigError(f"--set {wrong[0]}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in given)


def _request(values: dict[str, Any]) -> Any:
    from scanloop.studies.request import StudyRequest

    try:
        return StudyRequest.model_validate(values)
    except ValidationError as error:
        raise ConfigError(listed("study", error)) from error
