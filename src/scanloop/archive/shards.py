"""Shards: the slices of a catalog in tar files of WebDataset's layout, read by position or from front to back."""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL.Image

from scanloop.artifacts import write_bytes
from scanloop.errors import ArtifactError
from scanloop.types import Image

FOLDER = "shards"


class Location(NamedTuple):
    """Where a slice's PNG stands.

    Attributes:
        shard: Name of the tar file in the catalog's folder of shards.
        offset: Position of the PNG's first byte in it.
        length: Bytes of the PNG.
    """

    shard: str
    offset: int
    length: int


class ShardWriter:
    """Writes slices into numbered shards; each shard appears whole, when it is full or the writer is closed.

    Attributes:
        digests: SHA-256 of each shard written so far, by name.
    """

    def __init__(self, catalog: Path, shard_slices: int) -> None:
        self.digests: dict[str, str] = {}
        self._catalog = catalog
        self._shard_slices = shard_slices
        self._members: list[tuple[str, bytes]] = []
        self._position = 0

    def add(self, slice_id: str, png: bytes) -> Location:
        """Put a slice into the current shard and say where it will stand."""
        if len(self._members) == self._shard_slices:
            self.close()
        location = Location(_name(len(self.digests)), self._position + tarfile.BLOCKSIZE, len(png))
        self._members.append((slice_id, png))
        self._position = location.offset + len(png) + _padding(len(png))
        return location

    def close(self) -> None:
        """Write what is still in memory; further slices start the next shard."""
        if self._members:
            name = _name(len(self.digests))
            self.digests[name] = _write_shard(self._catalog, name, self._members)
        self._members, self._position = [], 0

    def keep_only(self, shard: str, kept: Sequence[tuple[str, Location]]) -> list[Location]:
        """Write a shard again with these of its slices alone, and say where they stand now; none removes the shard."""
        members = [(slice_id, read_png(self._catalog, location)) for slice_id, location in kept]
        if not members:
            (self._catalog / FOLDER / shard).unlink()
            del self.digests[shard]
            return []
        self.digests[shard] = _write_shard(self._catalog, shard, members)
        positions = np.cumsum([0, *(tarfile.BLOCKSIZE + len(png) + _padding(len(png)) for _, png in members)])
        return [
            Location(shard, int(position) + tarfile.BLOCKSIZE, len(png))
            for position, (_, png) in zip(positions[:-1], members, strict=True)
        ]


def read_png(catalog: Path, location: Location) -> bytes:
    """Bytes of the PNG at a location.

    Raises:
        ArtifactError: The shard is missing or shorter than the location says.
    """
    try:
        with (catalog / FOLDER / location.shard).open("rb") as file:
            return _read(file, location)
    except FileNotFoundError as error:
        raise ArtifactError(f"{catalog}: {location.shard} is missing; run ingest again") from error


def iterate_shards(catalog: Path, manifest: pd.DataFrame) -> Iterator[tuple[str, list[str], list[Image]]]:
    """Slices of some rows of the manifest, shard by shard, in the manifest's order.

    Args:
        catalog: Artifact that holds the shards.
        manifest: Rows of its manifest, all or some.

    Yields:
        A shard's name, the ids of its slices, and the slices, uint8 (h, w) or (h, w, 3), range 0..255.

    Raises:
        ArtifactError: A shard is missing or does not hold a slice where the manifest says.
    """
    for shard, rows in manifest.groupby("shard", sort=False):
        path = catalog / FOLDER / str(shard)
        if not path.is_file():
            raise ArtifactError(f"{catalog}: {shard} is missing; run ingest again")
        with path.open("rb") as file:
            places = zip(rows["offset"].tolist(), rows["length"].tolist(), strict=True)
            images = [_decode(_read(file, Location(str(shard), *place)), str(shard)) for place in places]
        yield str(shard), rows["slice_id"].tolist(), images


def _name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _padding(length: int) -> int:
    return -length % tarfile.BLOCKSIZE


def _write_shard(catalog: Path, name: str, members: Sequence[tuple[str, bytes]]) -> str:
    """Write a tar whose bytes depend on its members alone, and return their digest."""
    sink = io.BytesIO()
    for slice_id, png in members:
        header = tarfile.TarInfo(f"{slice_id}.png")
        header.size = len(png)
        sink.write(header.tobuf(tarfile.USTAR_FORMAT))
        sink.write(png + bytes(_padding(len(png))))
    sink.write(bytes(2 * tarfile.BLOCKSIZE))
    payload = sink.getvalue()
    payload += bytes(-len(payload) % tarfile.RECORDSIZE)
    write_bytes(catalog / FOLDER / name, payload)
    return hashlib.sha256(payload).hexdigest()


def _read(file: io.BufferedReader, location: Location) -> bytes:
    file.seek(location.offset)
    payload = file.read(location.length)
    if len(payload) < location.length:
        raise ArtifactError(f"{location.shard} ends before byte {location.offset + location.length}; run ingest again")
    return payload


def _decode(png: bytes, shard: str) -> Image:
    try:
        return np.array(PIL.Image.open(io.BytesIO(png), formats=("PNG",)))
    except (OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{shard} does not hold the slice that the manifest names; run ingest again") from error
