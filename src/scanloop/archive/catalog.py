"""From what came in to a catalog: who belongs together, who is held out, and the tables that say so."""

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scanloop.archive.duplicates import THUMBNAIL_PX, ThumbnailFile, affordable_bits, near_duplicate_pairs, thumbnail
from scanloop.archive.journal import Journal
from scanloop.archive.shards import Location, keep_only, read_slice
from scanloop.archive.splits import LISTED, SPLITS, as_line, group_ids, list_name, split_by_group
from scanloop.artifacts import TableWriter, write_bytes
from scanloop.config import IngestConfig
from scanloop.errors import LeakageError
from scanloop.tables import TABLES
from scanloop.types import Image, Labels

logger = logging.getLogger("scanloop")

_FRAME_ROWS = 4096

_MANIFEST = """
SELECT lower(hex(slice_id)) AS slice_id, lower(hex(sha256)) AS sha256, frame,
    iif(phash IS NULL, NULL, printf('%016llx', phash)) AS phash, patient_id, study_id, site,
    printf('%016llx', group_id) AS group_id, modality, height, width, bits, label,
    iif(label IS NULL, NULL, 'source') AS label_source, split,
    shard, offset, length
FROM slices ORDER BY row
"""
_OTHERS = {
    "sources.parquet": """
        SELECT lower(hex(slices.slice_id)) AS slice_id, uri, images.label AS given_label, bytes
        FROM images JOIN slices USING (row) ORDER BY images.row, uri""",
    "quarantine.parquet": "SELECT uri, reason, detail FROM images WHERE row IS NULL ORDER BY uri",
    "hidden_labels.parquet": """
        SELECT lower(hex(slice_id)) AS slice_id, hidden_label AS label FROM slices
        WHERE label IS NULL AND hidden_label IS NOT NULL ORDER BY row""",
    "attributes.parquet": """
        SELECT lower(hex(slice_id)) AS slice_id, name, value FROM attributes JOIN slices USING (row)
        ORDER BY attributes.row, name""",
    "seen.parquet": "SELECT file, version FROM files WHERE version IS NOT NULL ORDER BY file",
}


def drop_unusable(journal: Journal, catalog: Path) -> None:
    """Take out slices that have left the archive since the base, and bytes under two labels, which are quarantined.

    Slices that no image stands for any more leave their shards, which are written again.
    """
    conflicting = "SELECT row FROM images WHERE row IS NOT NULL GROUP BY row HAVING count(DISTINCT label) > 1"
    labels = "SELECT uri, label FROM images WHERE row = ? AND label IS NOT NULL ORDER BY uri"
    for (row,) in list(journal.query(conflicting)):
        given = " and ".join(f"{label} ({uri})" for uri, label in journal.query(labels, (row,)))
        refused = "UPDATE images SET row = NULL, reason = 'conflicting_labels', detail = ? WHERE row = ?"
        journal.change(refused, (f"the same bytes stand under {given}", row))
    journal.change("INSERT OR IGNORE INTO rewrites SELECT DISTINCT shard FROM orphans")
    journal.change("DELETE FROM slices WHERE row IN (SELECT row FROM orphans)")
    journal.change("UPDATE slices SET label = (SELECT min(label) FROM images WHERE images.row = slices.row)")
    journal.commit()
    for (shard,) in list(journal.query("SELECT shard FROM rewrites ORDER BY shard")):
        kept = {name for (name,) in journal.query("SELECT lower(hex(slice_id)) FROM slices WHERE shard = ?", (shard,))}
        digest, locations = keep_only(catalog, shard, kept)
        journal.change("DELETE FROM shards WHERE name = ?", (shard,))
        if digest is not None:
            journal.change("INSERT INTO shards VALUES (?, ?)", (shard, digest))
        places = [(one.offset, one.length, bytes.fromhex(name)) for name, one in locations.items()]
        journal.change_each("UPDATE slices SET offset = ?, length = ? WHERE slice_id = ?", places)
        journal.change("DELETE FROM rewrites WHERE shard = ?", (shard,))
        journal.commit()


def group_and_split(journal: Journal, config: IngestConfig, catalog: Path, thumbnails: ThumbnailFile) -> dict[str, int]:
    """Give each slice its group and its split.

    Args:
        journal: What came in.
        config: Near-duplicates and shares.
        catalog: Folder of the catalog, with the shards.
        thumbnails: Those of the rows that the base did not have.

    Returns:
        Sets of slices that near-duplicates alone join, and the most bits of the hash that those differ in.
    """
    near, bits = _near_duplicates(journal, config, catalog, thumbnails)
    rows: Labels = journal.array("SELECT row FROM slices ORDER BY row", np.int64)
    pairs = np.searchsorted(rows, near)
    groups = group_ids(_names(journal), np.concatenate([pairs, _links(journal, rows)]))
    with_label = "SELECT {} FROM slices WHERE label IS NOT NULL ORDER BY row"
    splits = split_by_group(
        groups,
        np.searchsorted(rows, journal.array(with_label.format("row"), np.int64)),
        np.array([label for (label,) in journal.query(with_label.format("label"))], object),
        journal.array("SELECT held_out FROM slices ORDER BY row", np.int8, missing=-1),
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
    )
    for start in range(0, len(rows), _FRAME_ROWS):
        part = slice(start, start + _FRAME_ROWS)
        values = zip(groups[part].view(np.int64).tolist(), splits[part].tolist(), rows[part].tolist(), strict=True)
        journal.change_each("UPDATE slices SET group_id = ?, split = ? WHERE row = ?", values)
    journal.commit()
    alike = np.unique(near)
    sets = np.unique(group_ids(alike.astype(np.uint64), np.searchsorted(alike, near)))
    return {"near_duplicate_groups": len(sets), "near_duplicate_bits": bits}


def write_tables(journal: Journal, output: Path) -> None:
    """Write the manifest and the other tables, a few thousand rows in memory at a time."""
    for name, query in {"manifest": _MANIFEST, **_OTHERS}.items():
        with TableWriter(output, name) as writer:
            for frame in _frames(journal, query, TABLES[name].names):
                if name == "manifest":
                    frame["split"] = [SPLITS[code] for code in frame["split"]]
                writer.append(frame)


def write_split_lists(journal: Journal, output: Path) -> None:
    """Write `{train,validation,test}_{groups,patients}.txt`: what stands in each split, one a line, sorted.

    They are a second record of the splits, in a form that needs no reader: `splits.proven_manifest` holds the manifest
    against them. `splits.split_lists` says how a patient is named; files are empty where none is known.

    Raises:
        LeakageError: A group or a patient crosses the splits.
    """
    for kind in LISTED:
        crossing = "SELECT name FROM named WHERE kind = ? GROUP BY name HAVING count(DISTINCT split) > 1"
        if (name := journal.one(crossing, (kind,))) is not None:
            raise LeakageError(f"{kind}: {name} crosses splits; training on it would leak the hold-out")
        for code, split in enumerate(SPLITS):
            sink = io.BytesIO()
            names = "SELECT DISTINCT name FROM named WHERE kind = ? AND split = ? ORDER BY name"
            for (name,) in journal.query(names, (kind, code)):
                sink.write(as_line(name).encode() + b"\n")
            write_bytes(output / list_name(split, kind), sink.getvalue())


def data_digest(entries: Iterable[tuple[str, str | None]]) -> str:
    """Digest of slices' ids and labels, which come sorted by id."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def _near_duplicates(
    journal: Journal, config: IngestConfig, catalog: Path, thumbnails: ThumbnailFile
) -> tuple[Labels, int]:
    """Pairs of rows that look the same, of which at least one is new, and the most bits that they differ in."""
    new = journal.first_own_row
    rows: Labels = journal.array("SELECT row FROM slices WHERE phash IS NOT NULL ORDER BY row", np.int64)
    hashes = journal.array("SELECT phash FROM slices WHERE phash IS NOT NULL ORDER BY row", np.int64).view(np.uint64)

    def of(positions: Labels) -> Image:
        wanted = rows[positions]
        found = np.empty((len(wanted), THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
        found[wanted >= new] = thumbnails(wanted[wanted >= new] - new)
        for position in np.flatnonzero(wanted < new).tolist():
            found[position] = _thumbnail(journal, catalog, int(wanted[position]))
        return found

    bits = affordable_bits(hashes, config.near_duplicate_bits)
    if bits < config.near_duplicate_bits:
        logger.info("near-duplicates differ in at most %d of 64 bits: more would compare too many slices", bits)
    first_new = int(np.searchsorted(rows, new))
    found: Labels = rows[near_duplicate_pairs(hashes, of, bits, config.near_duplicate_correlation, first_new)]
    return found, bits


def _thumbnail(journal: Journal, catalog: Path, row: int) -> Image:
    ((shard, offset, length),) = journal.query("SELECT shard, offset, length FROM slices WHERE row = ?", (row,))
    return thumbnail(read_slice(catalog, Location(shard, offset, length)))


def _names(journal: Journal) -> npt.NDArray[np.uint64]:
    """First 64 bits of each slice's id, in the order of the rows."""
    ids = journal.query("SELECT substr(slice_id, 1, 8) FROM slices ORDER BY row")
    return np.fromiter((int.from_bytes(one) for (one,) in ids), np.uint64)


def _links(journal: Journal, rows: Labels) -> Labels:
    """Positions of slices that share a patient, a study or a group of the base, two by two."""

    def chained() -> Iterator[int]:
        before: tuple[Any, int] = (None, -1)
        for key, row in journal.query("SELECT key, row FROM links JOIN slices USING (row) ORDER BY key, row"):
            if key == before[0]:
                yield before[1]
                yield row
            before = key, row

    linked = np.fromiter(chained(), np.int64)
    return np.searchsorted(rows, linked).astype(np.int64).reshape(-1, 2)


def _frames(journal: Journal, query: str, columns: list[str]) -> Iterator[pd.DataFrame]:
    rows: list[tuple[Any, ...]] = []
    for row in journal.query(query):
        rows.append(row)
        if len(rows) == _FRAME_ROWS:
            yield pd.DataFrame(rows, columns=columns, dtype=object)
            rows = []
    yield pd.DataFrame(rows, columns=columns, dtype=object)
