"""A catalog that grew: what an earlier one holds is taken over, and only what is new or changed is read."""

import os
import shutil
from pathlib import Path

import pandas as pd

from scanloop.archive.deidentify import read_forgotten
from scanloop.archive.identities import is_hidden
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

_DOUBT_COPIES = """
UPDATE files SET is_whole = 0 WHERE number IN (SELECT file FROM images WHERE row IN (
    SELECT row FROM images JOIN slices USING (row) WHERE coalesce(patient_id, study_id) IS NOT NULL
    GROUP BY row HAVING count(*) > 1
))
"""


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
    _refuse_otherwise_hidden(base, config)
    row = 0
    for frame in iterate_table(base, "manifest"):
        _take_slices(journal, frame, row)
        row += len(frame)
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
    _doubt_forgotten(journal, config)
    journal.begin_own(row)


def _refuse_otherwise_hidden(base: Path, config: IngestConfig) -> None:
    """Return if text was looked for in the base's slices as it would be in new ones, and names were hidden alike."""
    made = read_json(base / "artifact.json")["config"]["source"]
    wanted = config.source.model_dump(mode="json")
    for name in ("deidentify", "burned_in") if is_hidden(config.source) else ("deidentify",):
        if wanted.get(name, False) != made.get(name, False):
            raise ConfigError(
                f"ingest.source.{name}: {wanted.get(name, False)}, but {base} was made with {made.get(name, False)}; "
                "ingest without a base"
            )


def _doubt_forgotten(journal: Journal, config: IngestConfig) -> None:
    """Files of patients who were erased since the base are asked for again, and then left out."""
    if is_hidden(config.source):
        sql = "SELECT file FROM images JOIN slices USING (row) WHERE patient_id = ?"
        forgotten = read_forgotten(Path(getattr(config.source, "key_file", "")))
        doubted = f"UPDATE files SET is_whole = 0 WHERE number IN ({sql})"  # noqa: S608  # no input
        journal.change_each(doubted, ((patient,) for patient in sorted(forgotten)))


def _take_slices(journal: Journal, frame: pd.DataFrame, first: int) -> None:
    values = []
    for row, one in enumerate(frame.to_dict("records"), start=first):
        hashed = None if one["phash"] is None else _signed(int(one["phash"], 16))
        digests = bytes.fromhex(one["slice_id"]), bytes.fromhex(one["sha256"])
        values.append((row, *digests, hashed, SPLITS.index(one["split"]), *(one[name] for name in _KEPT)))
        journal.link("group", None, one["group_id"], row)
        for kind in ("patient", "study"):
            if (name := one[f"{kind}_id"]) is not None:
                journal.link(kind, one["site"], name, row)
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
            sql = "INSERT INTO images (uri, file, row, label, bytes) VALUES (?, ?, ?, ?, ?)"
            journal.change(sql, (uri, number, journal.row_of(slice_id), label, nbytes))
    journal.change(_DOUBT_COPIES)  # the base names one patient a slice, whose copies may show others, too
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
