"""What is written of one image, and how a table of such rows stands in Parquet and in CSV."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.errors import ArtifactError

SCHEMA = pa.schema([
    ("uri", pa.string()),
    ("slice_id", pa.string()),
    ("label", pa.string()),
    ("confidence", pa.float64()),
    ("probabilities", pa.map_(pa.string(), pa.float64())),
    ("set", pa.list_(pa.string())),
    ("abstained", pa.string()),
    ("fault", pa.string()),
    ("strangeness", pa.float64()),
    ("model_digest", pa.string()),
])  # fmt: skip
"""Columns of a table of predictions. In CSV, `probabilities` is a JSON object and `set` a JSON list."""

NESTED, NUMBERS = ("probabilities", "set"), ("confidence", "strangeness")
BAD_IMAGE = "bad_image"
ROWS_AT_ONCE = 8192
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""What makes a spreadsheet take a cell for a formula, and the sign that keeps it from it."""


@dataclass(frozen=True)
class Scored:
    """What is said of one image.

    Attributes:
        uri: Where it lies.
        slice_id: Its id in a catalog; None outside of one.
        label: At the operating point; None where it could not be read.
        confidence: Calibrated probability of the label, 0..1.
        probabilities: By class, sum 1; empty where it could not be read.
        members: The image's conformal set.
        abstained: Why no label should be acted on; None where it may be.
        fault: Why it could not be read; None where it could.
        strangeness: Cosine distance to familiar images, 0..2; None where unknown.
        model_digest: Of the bundle; None where no model was asked.
    """

    uri: str
    slice_id: str | None = None
    label: str | None = None
    confidence: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    members: Sequence[str] = ()
    abstained: str | None = None
    fault: str | None = None
    strangeness: float | None = None
    model_digest: str | None = None

    @property
    def key(self) -> str:
        """What names the image in its table."""
        return self.slice_id or self.uri


def unreadable(uri: str, fault: str, slice_id: str | None = None, model_digest: str | None = None) -> Scored:
    """Row of an image that could not be read."""
    return Scored(uri, slice_id, abstained=BAD_IMAGE, fault=fault, model_digest=model_digest)


def table_of(rows: Sequence[Scored]) -> pa.Table:
    """Rows under `SCHEMA`."""
    columns = {
        "uri": [row.uri for row in rows],
        "slice_id": [row.slice_id for row in rows],
        "label": [row.label for row in rows],
        "confidence": [row.confidence for row in rows],
        "probabilities": [list(row.probabilities.items()) for row in rows],
        "set": [list(row.members) for row in rows],
        "abstained": [row.abstained for row in rows],
        "fault": [row.fault for row in rows],
        "strangeness": [row.strangeness for row in rows],
        "model_digest": [row.model_digest for row in rows],
    }
    return pa.table(columns, schema=SCHEMA)


def read_tables(path: Path) -> Iterator[pa.Table]:
    """A table of predictions, some thousand rows at a time.

    Raises:
        ArtifactError: The file is damaged, or holds something else.
    """
    try:
        if path.suffix == ".csv":
            yield from _read_csv(path)
            return
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is no table of predictions ({error}); name another --output") from error


def write_tables(path: Path, tables: Iterable[pa.Table], kind: str) -> None:
    """Write tables one after the other into a file of a kind: ".csv" or ".parquet"."""
    if kind == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(SCHEMA.names)
            for table in tables:
                writer.writerows([_cell(name, row[name]) for name in SCHEMA.names] for row in table.to_pylist())
        return
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as parquet:
        for table in tables:
            parquet.write_table(table)


def _read_csv(path: Path) -> Iterator[pa.Table]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != SCHEMA.names:
            raise ValueError(f"its columns are not {', '.join(SCHEMA.names)}")
        rows: list[dict[str, Any]] = []
        for row in reader:
            rows.append({name: _value(name, row[name]) for name in SCHEMA.names})
            if len(rows) == ROWS_AT_ONCE:
                yield pa.Table.from_pylist(rows, SCHEMA)
                rows = []
        yield pa.Table.from_pylist(rows, SCHEMA)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in NESTED:
        return json.dumps(dict(value) if name == "probabilities" else value, ensure_ascii=False)
    if name in NUMBERS:
        return repr(value)
    return f"'{value}" if value.startswith(FORMULA) else str(value)


def _value(name: str, cell: str) -> Any:
    if name in NESTED:
        found = json.loads(cell or "[]")
        return list(found.items()) if isinstance(found, dict) else found
    if not cell:
        return None
    if name in NUMBERS:
        return float(cell)
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell
