"""`scanloop search`: the slices of a run that look most like a given one, with what is known of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from scanloop.artifacts import read_json, read_table
from scanloop.errors import ArchiveError, ConfigError
from scanloop.types import Half

EXAMPLES = (
    "Examples: scanloop search --run runs/brain --slice 3fa9c1 -k 5    "
    "scanloop search --run runs/brain --image suspicious.jpg"
)


@dataclass(frozen=True)
class Query:
    """What is searched for: its vector, float16 (1, d), and its slice_id where the archive holds it."""

    vector: Half
    slice_id: str | None


def search(
    run: Annotated[Path, typer.Option("--run", help="Folder of a run that triage has seen")],
    slice_id: Annotated[str | None, typer.Option("--slice", help="Id of a slice, or its first characters")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="Image file, read as ingest would")] = None,
    count: Annotated[int, typer.Option("-k", min=1, max=1000, help="Slices to show")] = 10,
) -> None:
    """Show the slices that look most like one of the archive, or like an image file."""
    if (slice_id is None) == (image is None):
        raise ConfigError("say what to search for: either --slice ID or --image FILE")
    query = _of_slice(run, slice_id) if slice_id is not None else _of_image(run, image or Path())
    found = nearest(run, query, count)
    table = Table(title=f"nearest of {run}", title_justify="left")
    for name, justify in (
        ("cosine", "right"),
        ("label", "left"),
        ("split", "left"),
        ("uri", "left"),
        ("slice", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in found.to_dict("records"):
        table.add_row(f"{row['cosine']:.4f}", row["label"] or "", row["split"], row["uri"], row["slice_id"][:16])
    Console(soft_wrap=True).print(table)


def nearest(run: Path, query: Query, count: int) -> pd.DataFrame:
    """Slices nearest to a query, most similar first: slice_id, cosine (exact), label, split, uri (the first of each).

    The slice searched for is left out. A label is an expert's: from the source, or bought since.

    Args:
        run: Folder with the artifacts catalog, embeddings and triage.
        query: What is searched for.
        count: Slices, at most.

    Raises:
        ArtifactError: An artifact is missing, or the index is of other slices.
    """
    from scanloop.embedding.cache import stored_vectors
    from scanloop.triage.near import unit
    from scanloop.triage.neighbours import open_index

    ids = read_table(run / "embeddings", "index.parquet")["slice_id"]
    places, _ = open_index(run / "triage", ids.tolist()).search(query.vector, min(count + 1, len(ids)))
    found = [slice_id for slice_id in ids.iloc[places[0][places[0] >= 0]] if slice_id != query.slice_id][:count]
    frame = pd.DataFrame({"slice_id": found, "cosine": 0.0})
    for rows, vectors in stored_vectors(run / "embeddings", found):  # those of an approximate index are approximate
        frame.loc[rows, "cosine"] = (unit(vectors) @ unit(query.vector)[0]).astype(float)
    manifest = read_table(run / "catalog", "manifest").set_index("slice_id")
    sources = read_table(run / "catalog", "sources.parquet").drop_duplicates("slice_id").set_index("slice_id")
    labels = manifest["label"]
    if (run / "labels" / "labels.parquet").exists():
        bought = read_table(run / "labels", "labels.parquet").dropna(subset="label").set_index("slice_id")["label"]
        labels = labels.where(labels.notna(), bought.reindex(labels.index))
    known = labels.reindex(frame["slice_id"]).to_numpy(dtype=object)
    frame["label"] = [label if isinstance(label, str) else None for label in known]
    frame["split"] = manifest["split"].reindex(frame["slice_id"]).to_numpy()
    frame["uri"] = sources["uri"].reindex(frame["slice_id"]).to_numpy()
    return frame.sort_values("cosine", ascending=False, kind="stable").reset_index(drop=True)


def _of_slice(run: Path, name: str) -> Query:
    from scanloop.embedding.cache import stored_vectors

    ids = read_table(run / "embeddings", "index.parquet")["slice_id"]
    matching = ids[ids.str.startswith(name)].tolist()
    if name not in matching and len(matching) != 1:
        raise ArchiveError(f"{len(matching)} slices of {run} have an id that starts with {name!r}; give more of it")
    slice_id = name if name in matching else matching[0]
    ((_, vectors),) = stored_vectors(run / "embeddings", [slice_id])
    return Query(vectors, slice_id)


def _of_image(run: Path, path: Path) -> Query:
    """Vector of an image file, read within the limits and shrunk to the size that the archive's were."""
    from scanloop.archive.decode import decode
    from scanloop.embedding.encoders import read_encoder
    from scanloop.embedding.engine import Engine

    if not path.is_file():
        raise ArchiveError(f"{path}: no such file")
    facts = read_json(run / "catalog" / "catalog.json")
    limits = {name: int(facts[name]) for name in ("min_side_px", "max_pixels", "short_side_px")}
    if path.stat().st_size > facts["max_pixels"] * 16:
        raise ArchiveError(f"{path} is larger than any image that ingest takes in")
    encoder, preprocess = read_encoder(run / "encoder")
    return Query(Engine(encoder, preprocess, 1)([decode(path.read_bytes(), **limits)]), None)
