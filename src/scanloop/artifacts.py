"""The contract between steps: the kinds of artifact, and all code that reads and writes them."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.errors import ArtifactError
from scanloop.tables import TABLES

SCHEMA_VERSION = 1
SCHEMA_VERSIONS = {"bundle.json": 2}
"""By name of the file, where it is another one. A bundle of version 1 knows neither abstention nor exemplars."""

GROUP_ROWS = 8192
"""Rows of a table that are in memory at once."""
PART_GROUPS = 16
"""Groups of rows in one file of the manifest: 131,072 rows, so that four million are 31 files."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "catalog": (
        "sources.parquet", "manifest", "shards", "quarantine.parquet", "hidden_labels.parquet",
        "attributes.parquet", "seen.parquet", "catalog.json",
        *(f"{split}_{kind}.txt" for split in ("train", "validation", "test") for kind in ("groups", "patients")),
    ),
    "validation": ("validation.json", "data_docs"),
    "encoder": ("encoder.safetensors", "encoder.json", "loss.csv"),
    "embeddings": ("index.parquet", "embeddings.json"),
    "triage": ("pca.npz", "clusters.parquet", "pushed_out.parquet", "triage.json", "neighbours.json", "neighbours"),
    "queue": ("queue.parquet", "queue.json"),
    "label_errors": ("queue.parquet", "queue.json", "label_errors.parquet"),
    "publication": ("publication.json",),
    "labels": ("labels.parquet", "labels.json"),
    "quality": ("quality.parquet", "quality.json"),
    "pseudo_labels": ("pseudo_labels.parquet", "certificate.json"),
    "bundle": (
        "model.safetensors", "model.onnx", "calibration.json", "conformal.json", "classes.json", "preprocess.json",
        "operating_points.json", "abstention.json", "familiar.npz", "exemplars.npz", "reference.npz", "MODEL_CARD.md",
        "bundle.json", "out_of_fold.parquet", "learnt.parquet",
    ),
    "evaluation": (
        "metrics.json", "predictions.parquet", "confidence.parquet", "curves.json", "robustness.json", "subgroups.json",
        "learning_curve.json", "map.json", "map.parquet",
    ),
    "external": ("external.json", "predictions.parquet"),
    "promotion": ("promotion.json",),
    "drift": ("drift.json", "drift.html"),
    "account": ("ledger.json",),
    "report": ("report.html", "DATASET_CARD.md", "environment.json"),
}  # fmt: skip
"""Files that each kind of artifact must hold, by kind."""

EXEMPT_NAMES = ("run.json", "ledger.json", "seen.parquet", "environment.json", "publication.json")
EXEMPT_SUFFIXES = (".html", ".css", ".js")
"""Files that hold a machine's or a clock's facts; every other file is the same, byte for byte, in every run."""

QUARANTINE_REASONS = (
    "empty_file", "not_an_image", "truncated", "too_small", "too_large", "unreadable", "conflicting_labels",
    "no_pixels", "unsupported", "other_modality", "burned_in_text", "missing_file", "unsafe_cell",
)  # fmt: skip


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file so that it is either whole or absent, whenever the process or the machine dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last: what is written later may say that a file is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, payload: Any) -> None:
    """Write JSON with sorted keys and the schema's version; dataclasses, arrays and numpy scalars are understood."""
    tree = _plain(payload)
    if isinstance(tree, dict):
        tree = {"schema_version": newest_schema(path)} | tree
    write_bytes(path, (json.dumps(tree, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` wrote.

    Raises:
        ArtifactError: The file is missing, broken, or of a newer schema.
    """
    try:
        payload = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; run the step that writes it first") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); remove {path.parent} and run its step again") from error
    if not isinstance(payload, dict) or payload.get("schema_version", 0) > newest_schema(path):
        raise ArtifactError(
            f"{path} has a schema that this version of scanloop cannot read: install the version that wrote it, or a"
            f" newer one, or run the step that writes {path.parent.name} again with this one"
        )
    return payload


def newest_schema(path: Path) -> int:
    """Newest version of a JSON file's schema, by its name, that this version of scanloop writes and reads."""
    return SCHEMA_VERSIONS.get(path.name, SCHEMA_VERSION)


class TableWriter:
    """Writes a table under its schema, frame by frame, in constant memory; it is there when the block ends, not before.

    The bytes depend on the rows alone, however they are cut into frames. "manifest" becomes numbered parts, others one
    file. Pages carry checksums, which are verified when they are read.

    Args:
        directory: Artifact directory.
        name: Key of `TABLES`.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._path, self._name, self._schema = directory / name, name, TABLES[name]
        self._rows = self._schema.empty_table()
        self._groups = 0
        self._writer: pq.ParquetWriter | None = None
        self._written: list[tuple[Path, Path]] = []

    def append(self, frame: pd.DataFrame) -> None:
        """Add rows; columns that the schema does not name are a fault, missing ones become nulls."""
        if unknown := sorted(set(frame.columns) - set(self._schema.names)):
            raise ArtifactError(f"{self._name}: columns {unknown} are not in the schema")
        for start in range(0, len(frame), GROUP_ROWS):
            part = frame.iloc[start : start + GROUP_ROWS]
            columns = [pa.array(_nulls(part, field.name), type=field.type) for field in self._schema]
            self._rows = pa.concat_tables([self._rows, pa.Table.from_arrays(columns, schema=self._schema)])
            if len(self._rows) >= GROUP_ROWS:
                self._write(GROUP_ROWS)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the files their names, or remove them where the block failed."""
        if kind is None and (len(self._rows) or not self._written):
            self._write(len(self._rows))
        self._close_part()
        for temporary, path in self._written:
            if kind is None:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
            else:
                temporary.unlink(missing_ok=True)

    def _write(self, rows: int) -> None:
        if self._writer is None:
            path = self._path
            if self._name == "manifest":
                path = self._path / f"part-{len(self._written):06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
            self._written.append((temporary, path))
            self._writer = pq.ParquetWriter(temporary, self._schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(self._rows[:rows], row_group_size=GROUP_ROWS)
        self._rows, self._groups = self._rows[rows:].combine_chunks(), self._groups + 1
        if self._name == "manifest" and self._groups == PART_GROUPS:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._groups = None, 0


def write_table(directory: Path, name: str, frame: pd.DataFrame) -> None:
    """Write a whole table that is in memory; `TableWriter` says how."""
    with TableWriter(directory, name) as writer:
        writer.append(frame)


def read_table(directory: Path, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table by its key in `TABLES`, or some of its columns; nulls in text columns come back as None.

    Raises:
        ArtifactError: The table is missing or its bytes are not those that were written.
    """
    return pd.concat(list(iterate_table(directory, name, columns)), ignore_index=True)


def iterate_table(directory: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Rows of a table in order, some thousand at a time, in constant memory; an empty table gives one empty frame.

    Raises:
        ArtifactError: The table is missing or its bytes are not those that were written.
    """
    schema = TABLES[name]
    if columns is not None:
        schema = pa.schema([schema.field(column) for column in columns])
    for path in _parts(directory, name):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for number in range(max(1, file.num_row_groups)):
                    table = file.read_row_group(number, schema.names) if file.num_row_groups else schema.empty_table()
                    yield _frame(table.select(schema.names).cast(schema))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ArtifactError(f"{path} is damaged ({error}); run the step that writes it again") from error


def count_rows(directory: Path, name: str) -> int:
    """Rows of a table by its key in `TABLES`, from the files' footers alone.

    Raises:
        ArtifactError: The table is missing.
    """
    return sum(pq.read_metadata(part).num_rows for part in _parts(directory, name))


def check_artifact(directory: Path, kind: str) -> None:
    """Return if the directory holds a whole artifact of this kind.

    Raises:
        ArtifactError: A file is missing; the message names it.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such {kind}; run the step that writes it first")
    if missing := [name for name in KINDS[kind] if not (directory / name).exists()]:
        raise ArtifactError(f"{directory}: not a whole {kind}: {', '.join(missing)} missing")


def is_exempt(path: Path) -> bool:
    """Whether a file may differ between two runs of the same inputs: it tells a machine's or a clock's facts."""
    return path.name in EXEMPT_NAMES or path.suffix in EXEMPT_SUFFIXES


def _parts(directory: Path, name: str) -> list[Path]:
    path = directory / name
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts or not parts[0].exists():
        raise ArtifactError(f"{path} is missing; run the step that writes it first")
    return parts


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if field.type == pa.string():
            frame[field.name] = frame[field.name].astype(object).where(frame[field.name].notna(), None)
    return frame


def _nulls(frame: pd.DataFrame, column: str) -> list[Any]:
    if column not in frame:
        return [None] * len(frame)
    values = frame[column]
    return [
        None if missing is True else value
        for value, missing in zip(values.tolist(), values.isna().tolist(), strict=True)
    ]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
