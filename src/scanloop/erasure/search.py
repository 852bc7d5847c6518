"""Search a folder for a patient after an erasure: every file, inside tables, archives and databases as well."""

import re
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.erasure.subject import Subject
from scanloop.erasure.texts import ID_COLUMNS

_TOKEN = re.compile(rb"[0-9a-f]{16,64}")


def traces(files: Iterator[Path], subject: Subject) -> dict[Path, int]:
    """Files in which the patient still stands, and how often at least."""
    return {path: count for path in files if (count := _count(path, subject))}


def _count(path: Path, subject: Subject) -> int:
    texts = _in_bytes(path.name.encode("utf-8", "surrogateescape"), subject)
    if path.suffix == ".parquet":
        return texts + _in_table(path, subject)
    if path.suffix == ".tar":
        with tarfile.open(path, "r:") as tar:
            return texts + sum(_in_bytes(one.name.encode(), subject) for one in tar)
    if path.suffix in {".db", ".sqlite", ".sqlite3"}:
        texts += _in_database(path, subject)
    return texts + _in_bytes(path.read_bytes(), subject)


def _in_bytes(payload: bytes, subject: Subject) -> int:
    """Ids in hexadecimal are compared as words, others are looked for anywhere."""
    long_ids = [text.encode("utf-8", "surrogateescape") for text in subject.long_ids()]
    hexadecimal = {text for text in long_ids if _TOKEN.fullmatch(text)}
    found = hexadecimal & set(_TOKEN.findall(payload))
    others = (text for text in long_ids if text not in hexadecimal and text in payload)
    words = [text for text in others if re.search(rb"(?<![\w-])" + re.escape(text) + rb"(?![\w-])", payload)]
    return len(found) + len(words)


def _in_table(path: Path, subject: Subject) -> int:
    table = pq.read_table(path)
    count = 0
    for name in table.schema.names:
        if pa.types.is_string(table.schema.field(name).type):
            count += _in_values(name, table[name].unique().to_pylist(), subject)
    return count


def _in_database(path: Path, subject: Subject) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        count = 0
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608  a name that the database gave
            names = [column[0] for column in cursor.description]
            for row in cursor:
                count += sum(_in_values(name, [value], subject) for name, value in zip(names, row, strict=True))
    return count


def _in_values(column: str, values: list[Any], subject: Subject) -> int:
    ids = subject.ids()
    texts = [value for value in values if isinstance(value, str)]
    whole = sum(text in ids for text in texts) if column in ID_COLUMNS else 0
    return whole + sum(_in_bytes(text.encode("utf-8", "surrogateescape"), subject) > 0 for text in texts)
