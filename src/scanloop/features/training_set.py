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


def training_set(
    repository: Path, as_of: datetime, slice_ids: Sequence[str] | None = None, views: Sequence[str] = tuple(VIEWS)
) -> pd.DataFrame:
    """What was known of slices at a time: per slice and view the latest fact of that time or earlier, nulls without.

    Feast's offline store on files leaves out a slice of which a view knows later facts alone, with what other views
    know of it, and may fail where a view knows nothing of a slice: each view is therefore joined by itself, for the
    slices that it knows, and what is left out is unknown.

    Args:
        repository: Folder of the feature repository.
        as_of: The time, UTC; facts of this very time count.
        slice_ids: Slices asked for; those that were ever labelled or promoted by default.
        views: Keys of `VIEWS`: what is asked of them.

    Returns:
        One row a slice, in the order of the ids: `slice_id` and the columns of these views.

    Raises:
        ConfigError: As `open_repository`.
    """
    store = open_repository(repository)
    ids = _labelled(repository) if slice_ids is None else list(dict.fromkeys(slice_ids))
    found = pd.DataFrame({ENTITY: pd.Series(ids, dtype=object)})
    moment = pd.Timestamp(as_of.astimezone(UTC)).as_unit("us")
    for view in views:
        names = [name for name, _ in VIEWS[view]]
        part = pd.DataFrame({name: [] for name in (ENTITY, *names)}, dtype=object)
        if known := sorted(_ids(repository, view).intersection(ids)):
            asked = pd.DataFrame({ENTITY: known, TIME: moment})
            part = store.get_historical_features(asked, [f"{view}:{name}" for name in names]).to_df()
        part = part[[ENTITY, *names]].astype({ENTITY: object})
        found = found.merge(part, on=ENTITY, how="left", validate="one_to_one")
    return _typed(found, views)


def write_set(path: Path, table: pd.DataFrame) -> None:
    """Write what `training_set` found as one Parquet file, whole or not at all."""
    schema = pa.schema([(ENTITY, pa.string()), *(column for columns in VIEWS.values() for column in columns)])
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _labelled(repository: Path) -> list[str]:
    """Slices that were ever given a label, answered or promoted, sorted."""
    promoted = _ids(repository, "pseudo_label", [("promoted", "=", True)])
    return sorted(_ids(repository, "given") | _ids(repository, "label") | promoted)


def _ids(repository: Path, view: str, filters: list[tuple[str, str, Any]] | None = None) -> set[str]:
    """Slices that a view says something of, at any time."""
    found: set[str] = set()
    for path in files_of(repository, view):
        found.update(pq.read_table(path, columns=[ENTITY], filters=filters)[ENTITY].to_pylist())
    return found


def _typed(frame: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
    """The frame with None in texts, and with types that know nulls for whole numbers and truths."""
    types = {"string": "object", "int64": "Int64", "double": "Float64", "bool": "boolean"}
    for name, kind in (column for view in views for column in VIEWS[view]):
        values = [None if missing else value for value, missing in zip(frame[name], frame[name].isna(), strict=True)]
        frame[name] = pd.Series(values, dtype=types[str(kind)])
    return frame
