"""Search a folder for a patient after an erasure: every file, inside tables, archives and databases as well."""

import html
import json
import sqlite3
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.artifacts import count_rows, read_json, read_table
from scanloop.embedding.cache import read_vectors
from scanloop.erasure.subject import Subject
from scanloop.erasure.texts import ID_COLUMNS, names_in_value
from scanloop.errors import ArtifactError
from scanloop.triage.neighbours import FACTS, open_index


def traces(files: Iterator[Path], subject: Subject) -> dict[Path, int]:
    """Files in which the patient still stands, and how often at least."""
    return {path: count for path in files if (count := _count(path, subject))}


def rows_too_many(artifact: Path, embeddings: Path | None, catalog: Path) -> dict[Path, int]:
    """Files of vectors that hold another number of rows than there are slices: vectors have no names to search for.

    Args:
        artifact: Any artifact; embeddings and triage have vectors.
        embeddings: Those that triage was made from.
        catalog: Catalog of the run.
    """
    found: dict[Path, int] = {}
    if (artifact / "embeddings.json").exists():
        slices = read_table(catalog, "manifest", ["shard"])["shard"].value_counts()
        files = {artifact / file: shard for shard, file in read_json(artifact / "embeddings.json")["files"].items()}
        for path in artifact.rglob("*.safetensors"):
            vectors = read_vectors(path)
            extra = abs((0 if vectors is None else len(vectors)) - int(slices.get(files.get(path), 0)))
            found |= {path: extra} if extra else {}
    if (artifact / FACTS).exists() and embeddings is not None:
        try:
            ids = read_table(embeddings, "index.parquet")["slice_id"].tolist()
            extra = abs(open_index(artifact, ids).rows() - count_rows(catalog, "manifest"))
        except ArtifactError:  # it is of other slices
            extra = 1
        found |= {artifact / FACTS: extra} if extra else {}
    return found


def _count(path: Path, subject: Subject) -> int:
    inside = _INSIDE.get(path.suffix, _in_bytes)
    return len(subject.mentions.find(path.name)) + inside(path, subject)


def _in_bytes(path: Path, subject: Subject) -> int:
    return len(subject.mentions.find(path.read_bytes().decode("utf-8", "surrogateescape")))


def _in_table(path: Path, subject: Subject) -> int:
    file = pq.ParquetFile(path)
    count = len(subject.mentions.find(str(file.schema_arrow.metadata)))
    for number in range(file.num_row_groups):
        group = file.read_row_group(number)
        count += sum(_in_values(name, _texts(group[name]), subject) for name in group.schema.names)
    return count


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Texts of a column, those in lists and dictionaries included."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return [text for text in column.unique().to_pylist() if text]
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return list(_strings(column.to_pylist()))
    return []


def _in_values(column: str, texts: list[str], subject: Subject) -> int:
    whole = sum(text in subject.ids for text in texts) if column in ID_COLUMNS else 0
    return whole + len(subject.mentions.find("\n".join(texts)))


def _in_tar(path: Path, subject: Subject) -> int:
    with tarfile.open(path, "r:") as tar:
        return len(subject.mentions.find("\n".join(one.name for one in tar)))


def _in_database(path: Path, subject: Subject) -> int:
    count = _in_bytes(path, subject)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            cursor = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608  a name that the database gave
            names = [column[0] for column in cursor.description]
            for row in cursor:
                count += sum(names_in_value(name, value, subject) for name, value in zip(names, row, strict=True))
    return count


def _in_safetensors(path: Path, subject: Subject) -> int:
    """Names of tensors and what is said of the file; the rest is numbers."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        return len(subject.mentions.find(file.read(min(length, 1 << 24)).decode("utf-8", "surrogateescape")))


def _in_npz(path: Path, subject: Subject) -> int:
    """Names of arrays, and those that hold texts."""
    with np.load(path, allow_pickle=False) as arrays:
        kinds = [name for name in arrays.files if arrays[name].dtype.kind in "US"]
        texts = [str(text) for name in kinds for text in arrays[name].ravel().tolist()]
        return len(subject.mentions.find("\n".join([*arrays.files, *texts])))


def _in_json(path: Path, subject: Subject) -> int:
    """Its texts without escapes, and its bytes."""
    try:
        texts = _strings(json.loads(path.read_bytes()))
    except ValueError:
        return _in_bytes(path, subject)
    return len(subject.mentions.find("\n".join(texts))) or _in_bytes(path, subject)


def _in_page(path: Path, subject: Subject) -> int:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return len(subject.mentions.find(html.unescape(text)) | subject.mentions.find(text))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str | bytes):
        yield value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


_INSIDE: Mapping[str, Callable[[Path, Subject], int]] = {
    ".parquet": _in_table,
    ".tar": _in_tar,
    ".db": _in_database,
    ".sqlite": _in_database,
    ".sqlite3": _in_database,
    ".safetensors": _in_safetensors,
    ".npz": _in_npz,
    ".faiss": lambda *_: 0,
    ".json": _in_json,
    ".html": _in_page,
}
"""How to look into a file, by suffix; other files are searched as bytes. Vectors are counted by `rows_too_many`."""
