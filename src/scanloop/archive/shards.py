"""Shards: the slices of a catalog in tar files of WebDataset's layout, read by position or from front to back."""

import hashlib
import io
import tarfile
from collections.abc import Container, Iterator, Mapping, Sequence
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
    """Writes slices into numbered shards; each shard appears whole, when it is closed.

    Args:
        catalog: Folder of the catalog.
        shard_slices: Slices a shard.
        digests: SHA-256 of the shards that are there already, by name; new ones are numbered after them.

    Attributes:
        digests: SHA-256 of each shard, by name.
    """

    def __init__(self, catalog: Path, shard_slices: int, digests: Mapping[str, str] | None = None) -> None:
        self.digests: dict[str, str] = dict(digests or {})
        self._number = 1 + max((int(name[len("shard-") : -len(".tar")]) for name in self.digests), default=-1)
        self._catalog = catalog
        self._shard_slices = shard_slices
        self._members: list[tuple[str, bytes]] = []
        self._position = 0

    @property
    def is_full(self) -> bool:
        """Whether the next slice starts another shard."""
        return len(self._members) == self._shard_slices

    def add(self, slice_id: str, png: bytes) -> Location:
        """Put a slice into the current shard and say where it will stand."""
        if self.is_full:
            self.close()
        location = Location(_name(self._number), self._position + tarfile.BLOCKSIZE, len(png))
        self._members.append((slice_id, png))
        self._position = location.offset + len(png) + _padding(len(png))
        return location

    def close(self) -> str | None:
        """Write what is still in memory and return the shard's name; further slices start the next one."""
        if not self._members:
            return None
        name = _name(self._number)
        self.digests[name] = _write_shard(self._catalog, name, self._members)
        self._members, self._position, self._number = [], 0, self._number + 1
        return name


def keep_only(catalog: Path, shard: str, kept: Container[str]) -> tuple[str | None, dict[str, Location]]:
    """Write a shard again with some of its slices alone; doing so again, after a kill, changes nothing.

    Args:
        catalog: Folder of the catalog.
        shard: Name of the shard.
        kept: Ids of the slices that stay; without any, the shard is removed.

    Returns:
        The shard's digest, None where it is gone, and where its slices stand, by id.
    """
    path = catalog / FOLDER / shard
    if not path.exists():
        return None, {}
    with tarfile.open(path, "r:") as tar:
        names = [(one.name.removesuffix(".png"), one) for one in tar.getmembers()]
        members = [(name, tar.extractfile(one).read()) for name, one in names if name in kept]  # type: ignore[union-attr]
    if not members:
        path.unlink()
        return None, {}
    digest = _write_shard(catalog, shard, members)
    locations, position = {}, 0
    for name, png in members:
        locations[name] = Location(shard, position + tarfile.BLOCKSIZE, len(png))
        position += tarfile.BLOCKSIZE + len(png) + _padding(len(png))
    return digest, locations


def images_by_id(catalog: Path, manifest: pd.DataFrame) -> dict[str, Image]:
    """Slices of these rows of the manifest, all of them in memory, by id."""
    return {
        slice_id: image
        for _, ids, images in iterate_shards(catalog, manifest)
        for slice_id, image in zip(ids, images, strict=True)
    }


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


def read_slice(catalog: Path, location: Location) -> Image:
    """Slice at a location, uint8 (h, w) or (h, w, 3), range 0..255.

    Raises:
        ArtifactError: The shard is missing or does not hold a slice there.
    """
    return _decode(read_png(catalog, location), location.shard)


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
