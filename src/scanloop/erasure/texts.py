"""Erase a patient from one file, by what kind of file it is; done twice, it is as done once."""

import io
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanloop.artifacts import write_bytes
from scanloop.erasure.subject import Subject

ID_COLUMNS = ("slice_id", "uri", "patient_id", "patient", "study_id", "group_id", "sha256")
"""Columns that hold ids and nothing else: a short id is the patient there, and a class or a number elsewhere."""


def erase_from(path: Path, subject: Subject) -> bool:
    """Erase the patient from a table, a text, a JSON file or a database; whether it was changed.

    Files of other kinds are left alone.
    """
    eraser = ERASERS.get(path.suffix)
    return eraser(path, subject) if eraser else False


def _parquet(path: Path, subject: Subject) -> bool:
    table = pq.read_table(path)
    kept = pa.array([True] * len(table), type=pa.bool_())
    ids, long_ids = pa.array(sorted(subject.ids() - set(subject.renamed))), subject.long_ids()
    for name in table.schema.names:
        if not pa.types.is_string(table.schema.field(name).type):
            continue
        column = table[name].combine_chunks()
        if name in ID_COLUMNS:
            hit = pc.is_in(column, value_set=ids)
        else:
            texts = {text for text in column.unique().to_pylist() if text and _mentions(text, long_ids)}
            hit = pc.is_in(column, value_set=pa.array(sorted(texts), type=pa.string()))
        kept = pc.and_(kept, pc.invert(hit))
    renamed = _rename_groups(table.filter(kept), subject.renamed)
    if renamed.equals(table):
        return False
    sink = io.BytesIO()
    pq.write_table(renamed, sink, compression="zstd")
    write_bytes(path, sink.getvalue())
    return True


def _rename_groups(table: pa.Table, renamed: Mapping[str, str]) -> pa.Table:
    if "group_id" not in table.schema.names or not renamed:
        return table
    place = table.schema.get_field_index("group_id")
    names = [renamed.get(name, name) for name in table["group_id"].to_pylist()]
    return table.set_column(place, table.schema.field(place), pa.array(names, type=pa.string()))


def _lines(path: Path, subject: Subject) -> bool:
    """Lines that name the patient go; a line that is a renamed group gets the new name."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    ids, long_ids = subject.ids() - set(subject.renamed), subject.long_ids()
    lines = [subject.renamed.get(line.strip(), line.strip("\n")) for line in text.splitlines()]
    kept = [line for line in lines if line.strip() not in ids and not _mentions(line, long_ids)]
    if kept == text.splitlines():
        return False
    write_bytes(path, "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape"))
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
    long_ids = subject.long_ids()

    def names(inner: Any) -> bool:
        return isinstance(inner, str) and (inner in subject.slice_ids or _mentions(inner, long_ids))

    def prune(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: prune(one) for key, one in inner.items() if not names(key) and not names(one)}
        return [prune(one) for one in inner if not names(one)] if isinstance(inner, list) else inner

    return prune(value)


def _database(path: Path, subject: Subject) -> bool:
    """Rows of any table in which a value names the patient go, and their bytes with them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        before = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        for table in tables:
            for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                ids = subject.ids() if column in ID_COLUMNS else subject.long_ids()
                statement = f'DELETE FROM "{table}" WHERE CAST("{column}" AS TEXT) = ?'  # noqa: S608  its own names
                connection.executemany(statement, [(text,) for text in sorted(ids)])
        connection.execute("COMMIT")
        changed = connection.total_changes > before
        if changed:
            connection.execute("VACUUM")
    return changed


def _mentions(text: str, long_ids: tuple[str, ...]) -> bool:
    """Whether a text holds an id as a word of its own: one that continues is another id."""
    return any(one in text and re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text) is not None for one in long_ids)


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
