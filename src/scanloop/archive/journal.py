"""What an ingest has taken in so far, in one SQLite file: a kill loses a shard at most, and memory does not grow."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scanloop.archive.burned_in import ATTRIBUTE
from scanloop.archive.readers.record import Known, RawImage
from scanloop.archive.shards import Location
from scanloop.archive.splits import SPLITS
from scanloop.errors import ArchiveError

_TABLES = """
CREATE TABLE slices (
    row INTEGER PRIMARY KEY, slice_id BLOB NOT NULL UNIQUE, sha256 BLOB NOT NULL, frame INTEGER NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, bits INTEGER NOT NULL, phash INTEGER,
    shard TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    patient_id TEXT, study_id TEXT, site TEXT, modality TEXT, hidden_label TEXT, held_out INTEGER, label TEXT,
    group_id INTEGER, split INTEGER
);
CREATE INDEX by_shard ON slices (shard);
CREATE TABLE images (
    number INTEGER PRIMARY KEY, uri TEXT NOT NULL UNIQUE, file INTEGER NOT NULL, row INTEGER, label TEXT,
    bytes INTEGER NOT NULL, slice_id BLOB, reason TEXT, detail TEXT
);
CREATE INDEX by_file ON images (file);
CREATE INDEX by_row ON images (row) WHERE row IS NOT NULL;
CREATE INDEX by_refused ON images (slice_id) WHERE slice_id IS NOT NULL;
CREATE TABLE files (
    number INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, version TEXT, is_new INTEGER NOT NULL,
    is_whole INTEGER NOT NULL, is_there INTEGER NOT NULL
);
CREATE TABLE links (key TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (key, row)) WITHOUT ROWID;
CREATE TABLE attributes (row INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (row, name))
    WITHOUT ROWID;
CREATE TABLE shards (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rewrites (shard TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE own (first_row INTEGER NOT NULL);
CREATE TABLE unsettled (row INTEGER PRIMARY KEY);
CREATE VIEW orphans AS SELECT row, shard FROM slices WHERE row NOT IN (SELECT row FROM images WHERE row IS NOT NULL);
CREATE VIEW named AS
    SELECT 'groups' AS kind, printf('%016llx', group_id) AS name, split FROM slices
    UNION SELECT 'patients', iif(site IS NULL, patient_id, site || '/' || patient_id), split FROM slices
    WHERE patient_id IS NOT NULL;
"""
_HALF_KNOWN = """
    SELECT DISTINCT row FROM unsettled JOIN images USING (row) JOIN files ON files.number = images.file
    WHERE NOT files.is_new ORDER BY row
"""
"""Slices of which some images, and not all, were read since the base."""
_CACHE_KIB = 4096
_FETCHED_ROWS = 4096


class Fresh(NamedTuple):
    """A slice that was not there before.

    Attributes:
        slice_id: SHA-256 of the source's digest and the frame, in hexadecimal.
        sha256: Digest of the source's bytes, in hexadecimal.
        frame: Index of the picture within the source.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        bits: Bits a channel in the source.
        location: Where the stored slice stands.
        attributes: What was seen in its pixels.
    """

    slice_id: str
    sha256: str
    frame: int
    height: int
    width: int
    bits: int
    location: Location
    attributes: Mapping[str, str]


class Journal:
    """Slices, the images that they came from, quarantine, links and shards of one ingest.

    A row is a slice, numbered from 0 as they came in. Nothing lasts before `commit`.

    Attributes:
        rows: Number of the next row.
        first_own_row: First row that an earlier catalog did not bring; meaningless until `has_begun`.
        has_begun: Whether it is known what an earlier catalog brought.

    Args:
        path: The SQLite file; a new one where there is none or where a kill left it half made.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("BEGIN")
        if not self.one("SELECT count(*) FROM sqlite_schema"):
            for statement in _TABLES.split(";"):
                self._database.execute(statement)
        self.rows = int(self.one("SELECT coalesce(max(row) + 1, 0) FROM slices"))
        begun = self.one("SELECT first_row FROM own")
        self.first_own_row, self.has_begun = int(begun or 0), begun is not None
        self.rows = max(self.rows, self.first_own_row)  # the base's last slices may have left
        # A file that was cut short comes once more, whole: what was refused of it must be found out once more.
        self.change("DELETE FROM images WHERE file IN (SELECT number FROM files WHERE is_new AND NOT is_whole)")

    def begin_own(self, first_row: int) -> None:
        """All rows from here on are this ingest's own; those before are the base's."""
        self.change("INSERT INTO own VALUES (?)", (first_row,))
        self.rows, self.first_own_row, self.has_begun = first_row, first_row, True
        self.commit()

    def close(self) -> None:
        """Drop what is not committed, and close the file."""
        self._database.close()

    def commit(self) -> None:
        """Make everything so far last."""
        self._database.execute("COMMIT")
        self._database.execute("BEGIN")

    def query(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows that a query finds, some thousand in memory at a time."""
        cursor = self._database.execute(sql, tuple(values))
        while rows := cursor.fetchmany(_FETCHED_ROWS):
            yield from rows

    def one(self, sql: str, values: Iterable[Any] = ()) -> Any:
        """The first value of the first row that a query finds; None where it finds none."""
        found = self._database.execute(sql, tuple(values)).fetchone()
        return None if found is None else found[0]

    def change(self, sql: str, values: Iterable[Any] = ()) -> None:
        """Carry out a statement."""
        self._database.execute(sql, tuple(values))

    def change_each(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Carry out a statement for each row of values."""
        self._database.executemany(sql, rows)

    def array(self, sql: str, dtype: npt.DTypeLike, missing: int = 0) -> npt.NDArray[Any]:
        """One column of numbers, without a Python object a row; nulls become `missing`."""
        values = (missing if value is None else value for (value,) in self.query(sql))
        return np.fromiter(values, dtype)

    def recall(self, file: str, version: str | None) -> bool:
        """Whether all of a file was taken in before, by this ingest or by its base, and the file is what it was then.

        A file without a version is known to this ingest alone: whoever continues it reads the same source.
        """
        sql = "SELECT number, version, is_new FROM files WHERE file = ? AND is_whole"
        number, known, is_new = self._database.execute(sql, (file,)).fetchone() or (None, None, False)
        if number is None or not (is_new or (version is not None and _stamp(version) == known)):
            return False
        self.change("UPDATE files SET is_there = 1 WHERE number = ?", (number,))
        return True

    def recall_base(self, file: str, version: str | None) -> Known | None:
        """As `recall`, for what the base brought alone: whom it shows."""
        is_new = self.one("SELECT is_new FROM files WHERE file = ?", (file,))
        if is_new != 0 or not self.recall(file, version):
            return None
        sql = (
            "SELECT patient_id, study_id FROM files JOIN images ON images.file = files.number JOIN slices USING (row) "
            "WHERE files.file = ? ORDER BY images.number LIMIT 1"
        )
        return Known(*(self._database.execute(sql, (file,)).fetchone() or (None, None)))

    def begin_file(self, file: str, version: str | None) -> int:
        """Number of a file whose images come now; what is known of them from before goes."""
        number: int | None = self.one("SELECT number FROM files WHERE file = ?", (file,))
        if number is not None:
            self._unsettle("SELECT row FROM images WHERE file = ?", (number,))
            self.change("DELETE FROM images WHERE file = ?", (number,))
        sql = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, 1, 0, 1)"
        added = self._database.execute(sql, (number, file, _stamp(version))).lastrowid
        assert added is not None
        return added

    def end_file(self, number: int) -> None:
        """All images of a file are in."""
        self.change("UPDATE files SET is_whole = 1 WHERE number = ?", (number,))

    def row_of(self, slice_id: str) -> int | None:
        """Row of a slice that came in before."""
        row: int | None = self.one("SELECT row FROM slices WHERE slice_id = ?", (bytes.fromhex(slice_id),))
        return row

    def refusal_of(self, slice_id: str) -> tuple[str, str] | None:
        """Reason and detail for which the same bytes were refused before."""
        sql = "SELECT reason, detail FROM images WHERE slice_id = ? LIMIT 1"
        return self._database.execute(sql, (bytes.fromhex(slice_id),)).fetchone()  # type: ignore[no-any-return]

    def add_slice(self, fresh: Fresh) -> int:
        """Row of a slice that was not there before."""
        row, self.rows = self.rows, self.rows + 1
        digests = bytes.fromhex(fresh.slice_id), bytes.fromhex(fresh.sha256)
        self.change(
            "INSERT INTO slices (row, slice_id, sha256, frame, height, width, bits, shard, offset, length) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row, *digests, fresh.frame, fresh.height, fresh.width, fresh.bits, *fresh.location),
        )
        self._add_attributes(row, fresh.attributes)
        return row

    def add_image(self, raw: RawImage, file: int, nbytes: int, row: int) -> None:
        """A uri under which a slice stands, and what it says of it; of single facts the first one stays."""
        if row < self.first_own_row:
            self._unsettle("SELECT ? AS row", (row,))
        self._add((raw.uri, file, row, raw.label, nbytes, None, None, None))
        facts = (raw.patient_id, raw.study_id, raw.site, raw.modality, raw.hidden_label)
        held_out = -1 if raw.split is None else SPLITS.index(raw.split)
        self.change(
            "UPDATE slices SET patient_id = coalesce(patient_id, ?), study_id = coalesce(study_id, ?), "
            "site = coalesce(site, ?), modality = coalesce(modality, ?), hidden_label = coalesce(hidden_label, ?), "
            "held_out = max(coalesce(held_out, -1), ?) WHERE row = ?",
            (*facts, held_out, row),
        )
        for kind, name in (("patient", raw.patient_id), ("study", raw.study_id)):
            if name is not None:
                self.link(kind, raw.site, name, row)
        self._add_attributes(row, raw.attributes)

    def link(self, kind: str, site: str | None, name: str, row: int) -> None:
        """Slices that share a patient or a study of a site, or a group, belong together."""
        self.change("INSERT OR IGNORE INTO links VALUES (?, ?)", (_key(kind, site, name), row))

    def settle(self) -> bool:
        """Forget the files that went, and say whether the source must be read once more.

        The base tells what its slices say, not which of their images said it. Where such a slice lost an image or got
        another, what the base said of it no longer counts, and all of its images are read again.
        """
        self._unsettle("SELECT row FROM images WHERE file IN (SELECT number FROM files WHERE NOT is_there)")
        self.change("DELETE FROM images WHERE file IN (SELECT number FROM files WHERE NOT is_there)")
        self.change("DELETE FROM files WHERE NOT is_there")
        rows = [row for (row,) in self.query(_HALF_KNOWN)]
        for row in rows:
            self._strip(row)
        again = "UPDATE files SET is_whole = 0, is_there = 0 WHERE number IN (SELECT file FROM images WHERE row = ?)"
        self.change_each(again, ((row,) for row in rows))
        self.commit()
        return bool(rows)

    def _unsettle(self, rows: str, values: tuple[Any, ...] = ()) -> None:
        """What slices of the base, which a query gives, say is to come from their images; once a slice."""
        new = f"SELECT row FROM ({rows}) WHERE row < ? EXCEPT SELECT row FROM unsettled"  # noqa: S608  # no input
        for (row,) in list(self.query(new, (*values, self.first_own_row))):
            self.change("INSERT INTO unsettled VALUES (?)", (row,))
            self._strip(row)

    def _strip(self, row: int) -> None:
        """Take from a slice what its images said of it; how held out it was, and its group's others, stay."""
        sql = "SELECT site, patient_id, study_id FROM slices WHERE row = ?"
        site, *names = self._database.execute(sql, (row,)).fetchone()
        keys = [(_key(kind, site, name), row) for kind, name in zip(("patient", "study"), names, strict=True)]
        self.change_each("DELETE FROM links WHERE key = ? AND row = ?", keys)
        facts = "patient_id = NULL, study_id = NULL, site = NULL, modality = NULL, hidden_label = NULL"
        self.change(f"UPDATE slices SET {facts} WHERE row = ?", (row,))  # noqa: S608  # no input
        self.change("DELETE FROM attributes WHERE row = ? AND name != ?", (row, ATTRIBUTE))

    def _add_attributes(self, row: int, attributes: Mapping[str, str]) -> None:
        rows = [(row, name, value) for name, value in sorted(attributes.items())]
        self.change_each("INSERT OR IGNORE INTO attributes VALUES (?, ?, ?)", rows)

    def refuse(self, uri: str, file: int, nbytes: int, fault: tuple[str, str], slice_id: str | None) -> None:
        """A row of the quarantine; with a slice_id, the same bytes are refused wherever they stand."""
        known = None if slice_id is None else bytes.fromhex(slice_id)
        self._add((uri, file, None, None, nbytes, known, *fault))

    def _add(self, values: tuple[Any, ...]) -> None:
        columns = "uri, file, row, label, bytes, slice_id, reason, detail"
        try:
            self.change(f"INSERT INTO images ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608  # no input
        except sqlite3.IntegrityError as error:
            raise ArchiveError(f"{values[0]}: two images of the archive have this name; rename one") from error

    def digests(self) -> dict[str, str]:
        """SHA-256 of each shard, by name."""
        return dict(self.query("SELECT name, digest FROM shards ORDER BY name"))


def _key(kind: str, site: str | None, name: str) -> str:
    return json.dumps([kind, site, name])


def _stamp(version: str | None) -> str | None:
    """Digest of a version, which may hold a date that tells more than whether the file changed."""
    return None if version is None else hashlib.sha256(version.encode()).hexdigest()[:16]
