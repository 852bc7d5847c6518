"""The views of a feature repository: columns of its tables, read by what writes them and by Feast's definitions."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

ENTITY, TIME = "slice_id", "event_timestamp"
KEY = b"scanloop.artifact"
"""Where a file's schema holds the key of the artifact that its rows were read from."""

_string, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()

VIEWS: Mapping[str, tuple[tuple[str, pa.DataType], ...]] = {
    "given": (("given_label", _string), ("split", _string)),
    "embedding": (("shard", _string), ("row", _int)),
    "cluster": (("cluster", _int),),
    "pseudo_label": (("pseudo_label", _string), ("confidence", _float), ("promoted", _bool), ("wave", _int)),
    "label": (
        ("label", _string), ("state", _string), ("readers", _int), ("agreement", _float), ("adjudicated", _bool),
        ("as_of", _string), ("purpose", _string),
    ),
}  # fmt: skip
"""Columns of each view beside `slice_id` and `event_timestamp`: scalars and references, never a vector.

`shard` and `row` say where the slice's vector stands in the artifact `embeddings`. `state` of a label is "answered" or
"withdrawn"; an answered one is null where readers were unsure or the image is bad. `confidence` is that of the
pseudo-label, in [0, 1].
"""


def schema_of(view: str) -> pa.Schema:
    """Schema of a view's files; times are UTC, in microseconds."""
    return pa.schema([(ENTITY, _string), (TIME, pa.timestamp("us", tz="UTC")), *VIEWS[view]])


def folder_of(repository: Path, view: str) -> Path:
    """Folder of a view's files in a repository."""
    return repository / "offline" / view


def files_of(repository: Path, view: str) -> list[Path]:
    """Files of a view, in the order of their names, which begin with a time."""
    return sorted(folder_of(repository, view).glob("*.parquet"))
