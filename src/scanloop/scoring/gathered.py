"""Rows as they come, kept in parts beside the output, so that a run that was killed goes on where it stood."""

import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanloop.artifacts import write_bytes
from scanloop.errors import ConfigError
from scanloop.scoring.rows import Scored, read_tables, table_of, write_tables

KINDS = (".csv", ".parquet")
PART_ROWS, PART_SECONDS = 4096, 5.0


class Gathered:
    """Rows of one output; use it under `replacing.locked(output)`.

    Rows stand in parts in a hidden folder beside the output, each whole or absent. `finish` puts them behind the rows
    that the output has, in one rename, and removes the parts. Killed between the two it finds them in both, and counts
    them once.

    Args:
        output: `.csv` or `.parquet`.
        facts: What the rows come from; rows of other facts are refused.

    Attributes:
        known: Keys of the images that have a row.

    Raises:
        ConfigError: The output is of another kind, or its rows come from something else.
        ArtifactError: The output is no table of predictions.
    """

    def __init__(self, output: Path, facts: Mapping[str, str] | None = None) -> None:
        if output.suffix not in KINDS:
            raise ConfigError(f"--output {output}: must end in {' or '.join(KINDS)}")
        self._output, self._folder = output, output.with_name(f".{output.name}.parts")
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*self._folder.glob("*.tmp"), *output.parent.glob(f".{output.name}.*.tmp")):
            leftover.unlink()
        self._check(dict(facts or {}))
        self.known = {key for table in self._tables() for key in _keys(table).to_pylist()}
        self._rows: list[Scored] = []
        self._number = 1 + max((int(path.stem.rpartition("-")[2]) for path in self._parts()), default=-1)
        self._since = time.monotonic()

    def add(self, row: Scored) -> None:
        """Take a row; it lasts from the next `flush` on, which comes by itself every few seconds."""
        self._rows.append(row)
        self.known.add(row.key)
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._since > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make what was taken last."""
        if self._rows:
            sink = io.BytesIO()
            pq.write_table(table_of(self._rows), sink, compression="zstd", write_page_checksum=True)
            write_bytes(self._folder / f"part-{self._number:08d}.parquet", sink.getvalue())
            self._rows, self._number = [], self._number + 1
        self._since = time.monotonic()

    def finish(self) -> None:
        """Put all rows into the output."""
        self.flush()
        temporary = self._output.with_name(f".{self._output.name}.{uuid.uuid4().hex}.tmp")
        try:
            write_tables(temporary, self._tables(), self._output.suffix)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self._output)
        finally:
            temporary.unlink(missing_ok=True)
        shutil.rmtree(self._folder)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _tables(self) -> Iterator[pa.Table]:
        """Rows of the output and then of the parts, each image once."""
        seen: set[str] = set()
        for path in (*([self._output] if self._output.exists() else []), *self._parts()):
            for table in read_tables(path):
                keys = _keys(table).to_pylist()
                fresh = [key not in seen for key in keys]
                seen.update(keys)
                yield table if all(fresh) else table.filter(pa.array(fresh, pa.bool_()))

    def _check(self, facts: dict[str, str]) -> None:
        """Return if the rows that are there come from the same."""
        stated = self._folder / "facts.json"
        found = json.loads(stated.read_text()) if stated.exists() else facts
        if self._output.exists() and "model_digest" in facts:
            digests = {one for table in read_tables(self._output) for one in table["model_digest"].unique().to_pylist()}
            if others := digests - {facts["model_digest"], None}:
                found = found | {"model_digest": others.pop()}
        if differing := [name for name in facts if found.get(name) != facts[name]]:
            words = ", ".join(f"{name} {str(found.get(name))[:16]}, not {facts[name][:16]}" for name in differing)
            remedy = f"name another --output, or remove {self._output} and {self._folder}"
            raise ConfigError(f"{self._output} holds rows made with {words}; {remedy}")
        write_bytes(stated, json.dumps(facts, sort_keys=True).encode())


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.coalesce(table["slice_id"], table["uri"])
