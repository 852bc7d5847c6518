"""Erase a patient from one file, by what kind of file it is; done twice, it is as done once."""

import io
import json
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanloop.artifacts import GROUP_ROWS, write_bytes
from scanloop.erasure.subject import Subject

ID_COLUMNS = (
    "slice_id", "near", "uri", "file", "patient_id", "patient", "study_id", "group_id", "sha256", "phash",
)  # fmt: skip
"""Columns that hold ids and nothing else: a short id is the patient there, and a class or a number elsewhere."""

NEIGHBOURS = ("neighbours", "neighbour_labels")
"""Columns of lists, in step: ids of other images, and their labels."""


def erase_from(path: Path, subject: Subject) -> bool:
    """Erase the patient from a table, a text, a JSON file or a database; whether it was changed.

    Files of other kinds are left alone.
    """
    eraser = ERASERS.get(path.suffix)
    return eraser(path, subject) if eraser else False


def _parquet(path: Path, subject: Subject) -> bool:
    table = pq.read_table(path)
    kept = pa.array([True] * len(table), type=pa.bool_())
    ids = pa.array(sorted(subject.ids - set(subject.renamed)))
    for name in table.schema.names:
        if not pa.types.is_string(table.schema.field(name).type):
            continue
        column = table[name].combine_chunks()
        if name in ID_COLUMNS:
            hit = pc.is_in(column, value_set=ids)
        else:
            texts = {text for text in column.unique().to_pylist() if text and subject.mentions.find(text)}
            hit = pc.is_in(column, value_set=pa.array(sorted(texts), type=pa.string()))
        kept = pc.and_(kept, pc.invert(hit))
    left = _without_neighbours(table.filter(kept), subject.ids)
    renamed = _rename_groups(left, subject.renamed)
    if renamed.equals(table):
        return False
    write_parquet(path, renamed)
    return True


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as `TableWriter` does: in groups of rows that fit into memory, with checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True)
    write_bytes(path, sink.getvalue())


def _without_neighbours(table: pa.Table, ids: Collection[str]) -> pa.Table:
    """The table without these images among the labelled ones that others are most like, and without their labels."""
    if not {*NEIGHBOURS} <= {*table.schema.names}:
        return table
    lists = [table[name].to_pylist() for name in NEIGHBOURS]
    kept = [
        None if near is None else [pair for pair in zip(near, labels, strict=True) if pair[0] not in ids]
        for near, labels in zip(*lists, strict=True)
    ]
    for side, name in enumerate(NEIGHBOURS):
        place = table.schema.get_field_index(name)
        values = [None if row is None else [pair[side] for pair in row] for row in kept]
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, type=field.type))
    return table


def _rename_groups(table: pa.Table, renamed: Mapping[str, str]) -> pa.Table:
    if "group_id" not in table.schema.names or not renamed:
        return table
    place = table.schema.get_field_index("group_id")
    names = [renamed.get(name, name) for name in table["group_id"].to_pylist()]
    return table.set_column(place, table.schema.field(place), pa.array(names, type=pa.string()))


def _lines(path: Path, subject: Subject) -> bool:
    """Lines that name the patient go; a line that is a renamed group gets the new name."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    ids, before = subject.ids - set(subject.renamed), text.split("\n")
    lines = [subject.renamed.get(line.strip(), line) for line in before]
    kept = [line for line in lines if line.strip() not in ids and not subject.mentions.find(line)]
    if kept == before:
        return False
    write_bytes(path, "\n".join(kept).encode("utf-8", "surrogateescape"))
    return True


def _json(path: Path, subject: Subject) -> bool:
    """Entries of lists and mappings that name the patient go, keys and values alike."""
    try:
        tree = json.loads(path.read_bytes())
    except ValueError:
        return _lines(path, subject)
    pruned = _pruned(tree, subject)
    if pruned == tree:
        return False
    text = json.dumps(pruned, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())
    return True


def _pruned(value: Any, subject: Subject) -> Any:
    def names(inner: Any) -> bool:
        return isinstance(inner, str) and bool(subject.mentions.find(inner))

    def prune(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: prune(one) for key, one in inner.items() if not names(key) and not names(one)}
        return [prune(one) for one in inner if not names(one)] if isinstance(inner, list) else inner

    return prune(value)


def _database(path: Path, subject: Subject) -> bool:
    """Rows of any table in which a value names the patient go, and their bytes with them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("names_them", 2, lambda column, value: names_in_value(column, value, subject) > 0)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        before = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        for table in tables:
            for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                statement = f'DELETE FROM "{table}" WHERE names_them(?, "{column}")'  # noqa: S608  its own names
                connection.execute(statement, (column,))
        connection.execute("COMMIT")
        changed = connection.total_changes > before
        if changed:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what was deleted stands in no log either
    return changed


def names_in_value(column: str, value: Any, subject: Subject) -> int:
    """Ids of the patient in a value of a database; blobs may be digests, or texts."""
    if isinstance(value, bytes):
        return int(value.hex() in subject.ids) + len(subject.mentions.find(value.decode("utf-8", "surrogateescape")))
    if not isinstance(value, str):
        return 0
    return int(column in ID_COLUMNS and value in subject.ids) or len(subject.mentions.find(value))


ERASERS: Mapping[str, Callable[[Path, Subject], bool]] = {
    ".parquet": _parquet,
    ".json": _json,
    ".txt": _lines,
    ".csv": _lines,
    ".log": _lines,
    ".jsonl": _lines,
    ".md": _lines,
    ".db": _database,
    ".sqlite": _database,
    ".sqlite3": _database,
}
"""By suffix."""
