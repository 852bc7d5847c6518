"""From the offline to the online store: what is new, in chunks, each of which a killed process need not do again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from scanloop.artifacts import read_json, write_json
from scanloop.features.offline import key_of, read_labels
from scanloop.features.repository import open_repository
from scanloop.features.views import ENTITY, TIME, VIEWS, files_of

PROGRESS = "materialized.json"
CHUNK_ROWS = 5_000
"""Rows that are in memory, and in one transaction, at once."""


def materialize(repository: Path) -> dict[str, int]:
    """Bring what is new in the offline store into the online store; rows brought, by view.

    Feast's own `materialize` holds a whole range of time in memory, and all rows of an artifact have one time; this
    writes chunk by chunk and notes after each how far it is. A file of an earlier time than one that is online already
    is followed by those of later times once more, so that the latest fact counts in any order of writing.

    Raises:
        ConfigError: As `open_repository`.
        ArtifactError: A file is damaged.
    """
    store = open_repository(repository)
    with FileLock(repository / ".materialize.lock"):
        progress = _Progress(repository)
        work = {view: progress.left(view) for view in VIEWS}
        total = sum(rows - done for files in work.values() for _, rows, done in files)
        brought = dict.fromkeys(VIEWS, 0)
        with tqdm(total=total, desc="materialize", unit="row", mininterval=2) as bar:
            for view, files in work.items():
                latest = _latest(repository) if view == "label" and files else None
                for path, _, done in files:
                    for start, frame in _chunks(path, done):
                        kept = frame if latest is None else frame.merge(latest, on=[ENTITY, TIME])
                        if len(kept):
                            store.write_to_online_store(view, kept)
                        progress.note(view, path, start + len(frame))
                        brought[view] += len(kept)
                        bar.update(len(frame))
    return brought


class _Progress:
    """How many rows of each file are online; kept in a file beside the store."""

    def __init__(self, repository: Path) -> None:
        self._repository, self._path = repository, repository / PROGRESS
        self._views: dict[str, dict[str, Any]] = {view: {} for view in VIEWS}
        if self._path.exists():
            self._views |= read_json(self._path)["views"]

    def left(self, view: str) -> list[tuple[Path, int, int]]:
        """Files that are not all online, oldest first: path, its rows, and how many of them are."""
        noted = self._views[view]
        found: list[tuple[Path, int, int]] = []
        for path in files_of(self._repository, view):
            rows, done = pq.read_metadata(path).num_rows, 0
            if noted.get(path.name, {}).get("key") == key_of(path):
                done = int(noted[path.name]["rows"])
            if found and view != "label":
                done = 0
            if done < rows:
                found.append((path, rows, done))
        return found

    def note(self, view: str, path: Path, rows: int) -> None:
        """Write down that so many rows of a file are online."""
        self._views[view][path.name] = {"key": key_of(path), "rows": rows}
        write_json(self._path, {"views": self._views})


def _latest(repository: Path) -> pd.DataFrame:
    """Slice and time of each label that counts now; one that came into the store late may be older."""
    return read_labels(repository).drop_duplicates(ENTITY, keep="last")[[ENTITY, TIME]]


def _chunks(path: Path, done: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """Rows of a file from some row on, with the number of the first of them."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        start = 0
        for batch in file.iter_batches(CHUNK_ROWS):
            if start + len(batch) > done:
                skipped = max(0, done - start)
                yield start + skipped, batch.slice(skipped).to_pandas()
            start += len(batch)
