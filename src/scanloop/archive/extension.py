"""A catalog that grew: what an earlier one holds is taken over, and only what is new or changed is read."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd

from scanloop.archive.deidentify import Pseudonyms, read_forgotten, read_key
from scanloop.archive.journal import Journal
from scanloop.archive.shards import FOLDER
from scanloop.archive.splits import SPLITS
from scanloop.artifacts import check_artifact, iterate_table, read_json, read_table
from scanloop.config import IngestConfig
from scanloop.errors import ConfigError

_DECIDES = ("short_side_px", "min_side_px", "max_pixels")
"""Settings on which the stored slices depend."""

_KEPT = (
    "frame", "height", "width", "bits", "shard", "offset", "length", "patient_id", "study_id", "site", "modality",
)  # fmt: skip
"""Columns of the manifest that a slice keeps as they are."""


def take_over(journal: Journal, base: Path, output: Path, config: IngestConfig) -> None:
    """Put all that a catalog says into a new journal, and its shards into another catalog.

    Slices keep their shard, their group's other members and at least their split's rank: what was held out stays so.
    Files count as known under the version that the base saw; those of its quarantine are read again. Patients whom the
    key's list names as erased stay behind, though the base may hold them still.

    Args:
        journal: An empty one.
        base: Catalog of an earlier ingest of the same archive.
        output: Folder of the catalog in the making.
        config: Of the new ingest.

    Raises:
        ArtifactError: The base is no whole catalog.
        ConfigError: The base's slices were made under other settings.
    """
    check_artifact(base, "catalog")
    facts = read_json(base / "catalog.json")
    for name in _DECIDES:
        if facts[name] != (wanted := getattr(config, name)):
            raise ConfigError(f"ingest.{name}: {wanted}, but the slices of {base} were made with {facts[name]}")
    row, forgotten = 0, _Forgotten(config)
    for whole in iterate_table(base, "manifest"):
        frame = whole[~forgotten.rows(whole)]
        _take_slices(journal, frame, row)
        row += len(frame)
        for shard in sorted(set(whole["shard"][forgotten.rows(whole)])):
            journal.change("INSERT OR IGNORE INTO rewrites VALUES (?)", (shard,))
    for frame in iterate_table(base, "hidden_labels.parquet"):
        hidden = zip(frame["label"], map(bytes.fromhex, frame["slice_id"]), strict=True)
        journal.change_each("UPDATE slices SET hidden_label = ? WHERE slice_id = ?", hidden)
    for frame in iterate_table(base, "attributes.parquet"):
        rows = zip(map(bytes.fromhex, frame["slice_id"]), frame["name"], frame["value"], strict=True)
        journal.change_each("INSERT INTO attributes SELECT row, ?2, ?3 FROM slices WHERE slice_id = ?1", rows)
    _take_files(journal, base)
    for shard, digest in facts["shards"].items():
        journal.change("INSERT INTO shards VALUES (?, ?)", (shard, digest))
        _link(base / FOLDER / shard, output / FOLDER / shard)
    journal.begin_own(row)


class _Forgotten:
    """Patients who must not come back: the list beside the key of the pseudonyms, where the source names one."""

    def __init__(self, config: IngestConfig) -> None:
        key_file: str | None = getattr(config.source, "key_file", None)
        self._listed = read_forgotten(Path(key_file)) if key_file else frozenset()
        self._pseudonyms = Pseudonyms(read_key(Path(key_file))) if key_file and self._listed else None

    def rows(self, frame: pd.DataFrame) -> pd.Series:
        """Which rows of a manifest are theirs, under pseudonyms or under the ids that the source gives."""
        return frame["patient_id"].map(self._is_listed).astype(bool)

    def _is_listed(self, name: str | None) -> bool:
        if name is None or self._pseudonyms is None:
            return False
        return name in self._listed or self._pseudonyms.patient(name) in self._listed


def _take_slices(journal: Journal, frame: pd.DataFrame, first: int) -> None:
    values = []
    for row, one in enumerate(frame.to_dict("records"), start=first):
        hashed = None if one["phash"] is None else _signed(int(one["phash"], 16))
        digests = bytes.fromhex(one["slice_id"]), bytes.fromhex(one["sha256"])
        values.append((row, *digests, hashed, SPLITS.index(one["split"]), *(one[name] for name in _KEPT)))
        journal.change("INSERT INTO links VALUES (?, ?)", (json.dumps(["group", None, one["group_id"]]), row))
        for kind in ("patient", "study"):
            if (name := one[f"{kind}_id"]) is not None:
                journal.change("INSERT INTO links VALUES (?, ?)", (json.dumps([kind, one["site"], name]), row))
    sql = (
        "INSERT INTO slices (row, slice_id, sha256, phash, held_out, frame, height, width, bits, shard, offset, "
        "length, patient_id, study_id, site, modality) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    journal.change_each(sql, values)


def _take_files(journal: Journal, base: Path) -> None:
    """Images and their files; a frame's file is its uri without the number."""
    for frame in iterate_table(base, "seen.parquet"):
        rows = zip(frame["file"], frame["version"], strict=True)
        journal.change_each(
            "INSERT INTO files (file, version, is_new, is_whole, is_there) VALUES (?, ?, 0, 1, 0)", rows
        )
    number_of = "SELECT number FROM files WHERE file = ?"
    for frame in iterate_table(base, "sources.parquet"):
        for slice_id, uri, label, nbytes in frame.itertuples(index=False, name=None):
            number = journal.one(number_of, (uri,)) or journal.one(number_of, (uri.rpartition("#")[0],))
            if number is None:  # of no version: it is read again
                sql = "INSERT INTO files (file, is_new, is_whole, is_there) VALUES (?, 0, 0, 0)"
                journal.change(sql, (uri,))
                number = journal.one(number_of, (uri,))
            if (row := journal.row_of(slice_id)) is None:  # of an erased patient: the reader leaves the file out
                journal.change("UPDATE files SET is_whole = 0 WHERE number = ?", (number,))
                continue
            sql = "INSERT INTO images (uri, file, row, label, bytes) VALUES (?, ?, ?, ?, ?)"
            journal.change(sql, (uri, number, row, label, nbytes))
    for uri in read_table(base, "quarantine.parquet", ["uri"])["uri"]:
        journal.change("UPDATE files SET is_whole = 0 WHERE file IN (?, ?)", (uri, uri.rpartition("#")[0]))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no such thing; shards never change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _signed(value: int) -> int:
    """64 bits as SQLite holds them."""
    return value - (1 << 64) if value >= 1 << 63 else value
