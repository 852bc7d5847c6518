"""`scanloop score`: a bundle's predictions of image files or of a whole catalog, without a server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from scanloop.artifacts import count_rows, write_json
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.engines.engine import ENGINES, PRECISIONS
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.cores import usable_cores
from scanloop.errors import ConfigError
from scanloop.replacing import locked
from scanloop.scoring.gathered import Gathered
from scanloop.scoring.images import listed_images
from scanloop.scoring.rows import Scored
from scanloop.scoring.scorer import Pace, score
from scanloop.scoring.sources import slices_by_shard, squares_of_files, squares_of_slices
from scanloop.scoring.tally import Tally

HELP = """Predict image files, or all slices of a catalog, with a bundle; write a row an image into a .csv or .parquet.

Rows are those of `scanloop predict`. A run that was interrupted, at whatever instant, goes on when it is started again;
of a catalog at least each finished shard is kept. --verify measures on the catalog's labelled test images whether the
engine is as calibrated as float32 ONNX Runtime, and writes JSON. The exit status is 1 where an image could not be read
or the engine is outside of the bundle's gate.
"""
EXAMPLES = """Examples:

scanloop score --bundle runs/brain/bundle --catalog runs/brain/catalog --output scored.parquet --engine openvino
--precision bf16 --verify verification.json

scanloop score --bundle runs/brain/bundle --output scored.csv slices/ 'more/**/*.dcm'
"""


def score_images(  # noqa: PLR0913  a keyword for each option
    images: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs in quotes")] = None,
    *,
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle")],
    output: Annotated[Path, typer.Option(help="Table of predictions, .csv or .parquet")],
    catalog: Annotated[Path | None, typer.Option(help="Predict a catalog's slices in place of files")] = None,
    engine: Annotated[str, typer.Option(help=f"auto (the fastest here), {', '.join(ENGINES)}")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help=f"Of the convolutions: {', '.join(PRECISIONS)}")] = "float32",
    threads: Annotated[int, typer.Option(min=0, max=256, help="Cores for the network; 0: all")] = 0,
    passes: Annotated[int, typer.Option(min=0, max=64, help="Forward passes at a time; 0: one a core")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images a forward pass")] = 8,
    verify: Annotated[Path | None, typer.Option(help="JSON to write of the engine's calibration")] = None,
) -> None:
    """Read the bundle, predict, and tell what it came to."""
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: take one of {', '.join(PRECISIONS)}")
    if (catalog is None) == (not images):
        raise ConfigError("say what to predict: either --catalog FOLDER, or images")
    if verify is not None and catalog is None:
        raise ConfigError("--verify: needs the labels of a catalog; give --catalog")
    cores = threads or usable_cores()
    pace = Pace(batch, passes or cores)
    model = read_bundle(bundle, Wanted(engine, precision, cores, pace.passes))
    made_by = {"model_digest": model.digest, "engine": model.engine.name, "precision": model.engine.precision}
    with locked(output):
        gathered = Gathered(output, made_by)
        tally = Tally()
        try:
            for rows in _rows(model, pace, catalog, images or [], gathered, tally):
                tally.count(rows)
                gathered.add(rows)
        finally:
            gathered.flush()
        gathered.finish()
    for line in tally.lines():
        typer.echo(line)
    within = verify is None or catalog is None or _verified(model, bundle, catalog, pace, verify)
    if not tally.is_whole or not within:
        raise typer.Exit(1)


def _rows(
    model: Bundle, pace: Pace, catalog: Path | None, images: list[str], gathered: Gathered, tally: Tally
) -> Iterator[Scored]:
    """Rows of what has none; each shard's are kept before the next one's come."""
    if catalog is None:
        paths = listed_images(images)
        wanted = [path for path in paths if str(path) not in gathered.known]
        tally.kept = len(paths) - len(wanted)
        yield from tqdm(
            score(model, squares_of_files(model, wanted, pace), pace), "score", len(wanted), unit="image", mininterval=1
        )
        return
    tally.kept = len(gathered.known)
    with tqdm(
        desc="score", total=count_rows(catalog, "manifest"), initial=tally.kept, unit="slice", mininterval=1
    ) as bar:
        for shard in slices_by_shard(catalog, frozenset(gathered.known)):
            for row in score(model, squares_of_slices(model, catalog, shard, pace), pace):
                yield row
                bar.update()
            gathered.flush()


def _verified(model: Bundle, bundle: Path, catalog: Path, pace: Pace, report: Path) -> bool:
    """Write what the engine's calibration is, and say whether it is within the bundle's gate."""
    from scanloop.scoring.verifying import verify

    found = verify(model, read_bundle(bundle, Wanted()).engine, catalog, pace)
    write_json(report, found)
    for arm in ("served", "onnxruntime_float32"):
        words = ", ".join(
            f"{name} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for name, one in found[arm].items()
        )
        typer.echo(f"{arm}: {words}, n {found['n']}")
    verdict = "within" if found["within_gate"] else "OUTSIDE"
    typer.echo(
        f"{found['engine']} {found['precision']}: a probability differs by {found['largest_difference']:.2g} at most, "
        f"{verdict} the gate of {found['gate']:g}"
    )
    typer.echo(f"labels changed: {found['changed_labels']} of {found['n']}")
    return bool(found["within_gate"])
