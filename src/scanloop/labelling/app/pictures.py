"""Images of the catalogs' shards, found by slice id and kept in memory up to a bound."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanloop.archive.shards import Location, read_png
from scanloop.artifacts import check_artifact, iterate_table
from scanloop.errors import ArtifactError

EXAMPLES = 3
"""Images a class that the guidelines show."""


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
        self._places: dict[str, tuple[Path, Location]] = {}
        self.examples: dict[str, list[str]] = {}
        for catalog in catalogs:
            check_artifact(catalog, "catalog")
            self._read(catalog)

    def __len__(self) -> int:
        return len(self._places)

    def png(self, slice_id: str) -> bytes:
        """Bytes of an image's PNG.

        Raises:
            ArtifactError: No catalog holds it, or its shard is gone.
        """
        with self._lock:
            if slice_id in self._cache:
                self._cache.move_to_end(slice_id)
                return self._cache[slice_id]
        place = self._places.get(slice_id)
        if place is None:
            raise ArtifactError("no catalog that the page was given holds this image; give it with --catalog")
        found = read_png(*place)
        with self._lock:
            if slice_id not in self._cache and len(found) <= self._cache_bytes:
                self._cache[slice_id] = found
                self._held += len(found)
            while self._held > self._cache_bytes:
                self._held -= len(self._cache.popitem(last=False)[1])
        return found

    def _read(self, catalog: Path) -> None:
        columns = ("slice_id", "label", "split", "shard", "offset", "length")
        for part in iterate_table(catalog, "manifest", columns):
            for row in part.itertuples(index=False):
                if row.shard is None or row.slice_id in self._places:
                    continue
                self._places[row.slice_id] = (catalog, Location(row.shard, int(row.offset), int(row.length)))
                if row.label is not None and row.split == "train":
                    of_class = self.examples.setdefault(str(row.label), [])
                    if len(of_class) < EXAMPLES:
                        of_class.append(row.slice_id)


def example(pictures: Pictures, classes: Sequence[str], number: int, index: int) -> str | None:
    """Slice id of a class's example, None where there is none."""
    shown: Mapping[str, list[str]] = pictures.examples
    of_class = shown.get(classes[number], []) if 0 <= number < len(classes) else []
    return of_class[index] if 0 <= index < len(of_class) else None
