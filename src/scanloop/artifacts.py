"""The contract between steps: the kinds of artifact, their tables' schemas, and all code that reads and writes them."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.errors import ArtifactError

SCHEMA_VERSION = 1

KINDS: Mapping[str, tuple[str, ...]] = {
    "catalog": ("sources.parquet", "manifest", "shards", "quarantine.parquet", "hidden_labels.parquet", "catalog.json"),
    "validation": ("validation.json", "data_docs"),
    "encoder": ("encoder.safetensors", "encoder.json", "loss.csv"),
    "embeddings": ("index.parquet", "embeddings.json"),
    "triage": ("pca.npz", "clusters.parquet", "triage.json"),
    "queue": ("queue.parquet", "queue.json"),
    "labels": ("labels.parquet", "labels.json"),
    "pseudo_labels": ("pseudo_labels.parquet", "certificate.json"),
    "bundle": (
        "model.safetensors", "model.onnx", "calibration.json", "classes.json", "preprocess.json", "reference.npz",
        "MODEL_CARD.md", "bundle.json", "out_of_fold.parquet",
    ),
    "evaluation": ("metrics.json", "predictions.parquet", "confidence.parquet", "curves.json"),
    "promotion": ("promotion.json",),
    "drift": ("drift.json", "drift.html"),
    "account": ("ledger.json",),
    "report": ("report.html",),
}  # fmt: skip
"""Files that each kind of artifact must hold, by kind."""

EXEMPT_NAMES = ("run.json", "ledger.json")
EXEMPT_SUFFIXES = (".html", ".css", ".js")
"""Files that hold a machine's or a clock's facts; every other file is the same, byte for byte, in every run."""

QUARANTINE_REASONS = (
    "empty_file", "not_an_image", "truncated", "too_small", "too_large", "unreadable", "conflicting_labels",
    "no_pixels", "unsupported", "other_modality", "burned_in_text", "missing_file", "unsafe_cell",
)  # fmt: skip

_string, _int, _float = pa.string(), pa.int64(), pa.float64()

TABLES: Mapping[str, pa.Schema] = {
    "sources.parquet": pa.schema([("slice_id", _string), ("uri", _string)]),
    "manifest": pa.schema([
        ("slice_id", _string), ("sha256", _string), ("frame", _int), ("phash", _string), ("patient_id", _string),
        ("study_id", _string), ("site", _string), ("group_id", _string), ("modality", _string), ("height", _int),
        ("width", _int), ("bits", _int), ("label", _string), ("label_source", _string), ("split", _string),
        ("shard", _string), ("offset", _int), ("length", _int),
    ]),
    "quarantine.parquet": pa.schema([("uri", _string), ("reason", _string), ("detail", _string)]),
    "hidden_labels.parquet": pa.schema([("slice_id", _string), ("label", _string)]),
    "attributes.parquet": pa.schema([("slice_id", _string), ("name", _string), ("value", _string)]),
    "index.parquet": pa.schema([("slice_id", _string), ("shard", _string), ("row", _int)]),
    "clusters.parquet": pa.schema([("slice_id", _string), ("cluster", _int), ("x", _float), ("y", _float)]),
    "queue.parquet": pa.schema([
        ("slice_id", _string), ("rank", _int), ("uncertainty", _float), ("diversity", _float), ("price", _float),
        ("reason", _string),
    ]),
    "labels.parquet": pa.schema([
        ("slice_id", _string), ("label", _string), ("readers", _int), ("agreement", _float),
        ("adjudicated", pa.bool_()), ("as_of", _string),
    ]),
    "pseudo_labels.parquet": pa.schema([
        ("slice_id", _string), ("uri", _string), ("probability", _float), ("confidence", _float), ("label", _string),
        ("knn_label", _string), ("knn_share", _float), ("anomaly", _float), ("promoted", pa.bool_()),
        ("reason", _string), ("wave", _int),
    ]),
    "out_of_fold.parquet": pa.schema([
        ("slice_id", _string), ("group_id", _string), ("repeat", _int), ("fold", _int), ("label", _string),
        ("logits", pa.list_(_float)),
    ]),
    "predictions.parquet": pa.schema([
        ("slice_id", _string), ("uri", _string), ("split", _string), ("label", _string), ("given_label", _string),
        ("probability", _float), ("confidence", _float), ("probabilities", pa.list_(_float)), ("promoted", pa.bool_()),
        ("reason", _string),
    ]),
    "confidence.parquet": pa.schema([
        ("slice_id", _string), ("side", _string), ("confidence", _float), ("positive", pa.bool_()),
    ]),
}  # fmt: skip
"""Schema of every table, by file name. Unlabelled is a null label.

`split` is "train", "validation" or "test" in the manifest; the pool is the train rows without a label. `probability` is
that of the positive class, `probabilities` follows the classes in `catalog.json`, `label` is the predicted class, and
`given_label` what an expert said. In predictions `split` is also "cross_validation", where the row was predicted by
models that never saw its group, and "pool". In confidences `side` is "reference" or "pool", `positive` whether the
predicted class is the positive one.
"""


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
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, payload: Any) -> None:
    """Write JSON with sorted keys and the schema's version; dataclasses, arrays and numpy scalars are understood."""
    tree = _plain(payload)
    if isinstance(tree, dict):
        tree = {"schema_version": SCHEMA_VERSION} | tree
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
    if not isinstance(payload, dict) or payload.get("schema_version", 0) > SCHEMA_VERSION:
        raise ArtifactError(f"{path} has a schema that this version of scanloop cannot read")
    return payload


def write_table(directory: Path, name: str, frame: pd.DataFrame) -> None:
    """Write a table under its schema; columns that the schema does not name are a fault.

    Args:
        directory: Artifact directory.
        name: Key of `TABLES`; "manifest" writes one part.
        frame: Rows; missing columns become nulls.
    """
    schema = TABLES[name]
    if unknown := sorted(set(frame.columns) - set(schema.names)):
        raise ArtifactError(f"{name}: columns {unknown} are not in the schema")
    columns = [pa.array(_nulls(frame, field.name), type=field.type) for field in schema]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, compression="zstd")
    path = directory / name / "part-000000.parquet" if name == "manifest" else directory / name
    write_bytes(path, sink.getvalue().to_pybytes())


def read_table(directory: Path, name: str) -> pd.DataFrame:
    """Read a table by its key in `TABLES`; nulls in text columns come back as None.

    Raises:
        ArtifactError: The table is missing.
    """
    path = directory / name
    if not path.exists():
        raise ArtifactError(f"{path} is missing; run the step that writes it first")
    frame: pd.DataFrame = pq.read_table(path, schema=TABLES[name]).to_pandas()
    for field in TABLES[name]:
        if field.type == _string:
            frame[field.name] = frame[field.name].astype(object).where(frame[field.name].notna(), None)
    return frame


def count_rows(directory: Path, name: str) -> int:
    """Rows of a table by its key in `TABLES`, from the files' footers alone.

    Raises:
        ArtifactError: The table is missing.
    """
    path = directory / name
    if not path.exists():
        raise ArtifactError(f"{path} is missing; run the step that writes it first")
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return sum(pq.read_metadata(part).num_rows for part in parts)


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
