"""The training set as it was known at a time: a point-in-time join through Feast's historical retrieval."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.artifacts import write_bytes
from scanloop.features.repository import open_repository
from scanloop.features.views import ENTITY, TIME, VIEWS, files_of


def training_set(repository: Path, as_of: datetime, slice_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """What was known of slices at a time: per slice and view the latest fact of that time or earlier, nulls without.

    Feast's offline store on files leaves out a slice of which a view knows later facts alone, with what other views
    know of it: each view is therefore joined by itself, and what is left out is unknown.

    Args:
        repository: Folder of the feature repository.
        as_of: The time, UTC; facts of this very time count.
        slice_ids: Slices asked for; those that were ever labelled or promoted by default.

    Returns:
        One row a slice, in the order of the ids: `slice_id` and the columns of every view.

    Raises:
        ConfigError: As `open_repository`.
    """
    store = open_repository(repository)
    ids = _labelled(repository) if slice_ids is None else list(dict.fromkeys(slice_ids))
    found = pd.DataFrame({ENTITY: pd.Series(ids, dtype=object)})
    moment = pd.Timestamp(as_of.astimezone(UTC)).as_unit("us")
    for view, columns in VIEWS.items():
        names = [name for name, _ in columns]
        part = pd.DataFrame({ENTITY: [], **{name: [] for name in names}}, dtype=object)
        if ids and files_of(repository, view):
            asked = found[[ENTITY]].assign(**{TIME: moment})
            joined = store.get_historical_features(asked, [f"{view}:{name}" for name in names]).to_df()
            part = joined[[ENTITY, *names]]
        part = part.assign(**{ENTITY: part[ENTITY].astype(object)})
        found = found.merge(part, on=ENTITY, how="left", validate="one_to_one")
    return _nones(found)


def write_set(path: Path, table: pd.DataFrame) -> None:
    """Write what `training_set` found as one Parquet file, whole or not at all."""
    schema = pa.schema([(ENTITY, pa.string()), *(column for columns in VIEWS.values() for column in columns)])
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _labelled(repository: Path) -> list[str]:
    """Slices that were ever given a label, answered or promoted, sorted."""
    found: set[str] = set()
    filters: dict[str, Any] = {"given": None, "label": None, "pseudo_label": [("promoted", "=", True)]}
    for view, kept in filters.items():
        for path in files_of(repository, view):
            found |= set(pq.read_table(path, columns=[ENTITY], filters=kept)[ENTITY].to_pylist())
    return sorted(found)


def _nones(frame: pd.DataFrame) -> pd.DataFrame:
    kinds = {name: str(kind) for columns in VIEWS.values() for name, kind in columns}
    types = {"string": "object", "int64": "Int64", "double": "float64", "bool": "boolean"}
    for name, kind in kinds.items():
        column = frame[name].astype(object).where(frame[name].notna(), None)
        frame[name] = column if kind == "string" else column.astype(types[kind])
    return frame
