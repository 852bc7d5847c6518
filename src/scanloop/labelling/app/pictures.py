"""Images of the catalogs' shards, found by slice id and kept in memory up to a bound."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from scanloop.archive.shards import Location, read_png
from scanloop.artifacts import check_artifact, iterate_table
from scanloop.errors import ArtifactError

COLUMNS = ("slice_id", "label", "split", "shard", "offset", "length")
EXAMPLES = 3
"""Images a class that the guidelines show."""


class Places:
    """Where the slices of one catalog stand, in some 80 bytes each: four million fit into memory.

    Args:
        catalog: Artifact of `ingest`.

    Attributes:
        catalog: The same.
        examples: Labelled training images, some a class, by class.

    Raises:
        ArtifactError: The folder is no catalog.
    """

    def __init__(self, catalog: Path) -> None:
        check_artifact(catalog, "catalog")
        self.catalog = catalog
        self.examples: dict[str, list[str]] = {}
        self._shards: list[str] = []
        parts = [self._part(frame) for frame in iterate_table(catalog, "manifest", COLUMNS)]
        ids = np.concatenate([one for one, _ in parts])
        order = np.argsort(ids, kind="stable")
        self._ids, self._rows = ids[order], np.concatenate([rows for _, rows in parts])[order]

    def find(self, slice_id: str) -> Location | None:
        """Where a slice stands; None where the catalog does not hold it."""
        wanted = slice_id.encode()
        row = int(np.searchsorted(self._ids, wanted))
        if row == len(self._ids) or self._ids[row] != wanted:
            return None
        shard, offset, length = self._rows[row].tolist()
        return Location(self._shards[shard], offset, length)

    def __len__(self) -> int:
        return len(self._ids)

    def _part(self, frame: pd.DataFrame) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]]:
        frame = frame[frame["shard"].notna()]
        known = frame[frame["label"].notna() & (frame["split"] == "train")]
        for name, rows in known.groupby("label", sort=False):
            of_class = self.examples.setdefault(str(name), [])
            of_class.extend(rows["slice_id"].head(EXAMPLES - len(of_class)))
        names = frame["shard"].unique()
        self._shards.extend(one for one in names if one not in self._shards)
        numbers = frame["shard"].map({name: number for number, name in enumerate(self._shards)})
        places = np.stack([numbers, frame["offset"], frame["length"]], axis=1).astype(np.int64)
        return np.array([one.encode() for one in frame["slice_id"]], dtype=np.bytes_), places


class Pictures:
    """PNGs of some catalogs, by slice id.

    Args:
        catalogs: Artifacts of `ingest`; of an image that stands in several the first one's is taken.
        cache_bytes: Most that is kept in memory.

    Attributes:
        examples: Labelled training images, some a class, by class.

    Raises:
        ArtifactError: A folder is no catalog.
    """

    def __init__(self, catalogs: Sequence[Path], cache_bytes: int) -> None:
        self._cache_bytes, self._held = cache_bytes, 0
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._places = [Places(catalog) for catalog in catalogs]
        found: dict[str, list[str]] = {}
        for place in self._places:
            for name, ids in place.examples.items():
                found[name] = [*found.get(name, []), *ids][:EXAMPLES]
        self.examples: Mapping[str, list[str]] = found

    def __len__(self) -> int:
        return sum(len(one) for one in self._places)

    def __contains__(self, slice_id: str) -> bool:
        """Whether a catalog holds an image."""
        return any(place.find(slice_id) is not None for place in self._places)

    def png(self, slice_id: str) -> bytes:
        """Bytes of an image's PNG.

        Raises:
            ArtifactError: No catalog holds it, or its shard is gone.
        """
        with self._lock:
            if slice_id in self._cache:
                self._cache.move_to_end(slice_id)
                return self._cache[slice_id]
        found = self._read(slice_id)
        with self._lock:
            if slice_id not in self._cache and len(found) <= self._cache_bytes:
                self._cache[slice_id] = found
                self._held += len(found)
            while self._held > self._cache_bytes:
                self._held -= len(self._cache.popitem(last=False)[1])
        return found

    def _read(self, slice_id: str) -> bytes:
        for place in self._places:
            if (location := place.find(slice_id)) is not None:
                return read_png(place.catalog, location)
        raise ArtifactError("no catalog that the page was given holds this image; give it with --catalog")


def example(pictures: Pictures, classes: Sequence[str], number: int, index: int) -> str | None:
    """Slice id of a class's example, None where there is none."""
    of_class = pictures.examples.get(classes[number], []) if 0 <= number < len(classes) else []
    return of_class[index] if 0 <= index < len(of_class) else None
