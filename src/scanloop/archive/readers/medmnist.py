"""Sets of MedMNIST: fetched once, checked against the MD5 that their authors publish, read as any .npz."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scanloop.archive.readers.npz import read_parts
from scanloop.archive.readers.record import RawImage
from scanloop.errors import ArchiveError
from scanloop.sources import MedmnistSource
from scanloop.storage.address import is_url
from scanloop.storage.download import download
from scanloop.storage.store import open_store

MOST_BYTES = 1 << 30
"""Larger files are none of these sets."""
TABLE = Path(__file__).with_name("medmnist.yaml")


def read_medmnist(source: MedmnistSource) -> Iterator[RawImage]:
    """Images of the set, downloaded where they are not in the cache; see `read_npz`.

    Raises:
        ArchiveError: The set is not at the address, or is larger than any of its kind.
        StorageError: It cannot be fetched, or is not what its MD5 promises.
    """
    facts = published()[source.name]
    named = source.model_copy(update={"class_names": source.class_names or tuple(facts["classes"])})
    yield from read_parts(named, str(fetch(source, facts["md5"][source.size_px])))


def published() -> dict[str, Any]:
    """Published MD5 by side in pixels, and names of the classes, of each set."""
    table: dict[str, Any] = yaml.safe_load(TABLE.read_text())
    return table


def fetch(source: MedmnistSource, md5: str) -> Path:
    """File of the set: the cached one, or a new one with this MD5.

    Raises:
        ArchiveError: The set is not at the address, or is larger than any of its kind.
        StorageError: It cannot be fetched, or is not what its MD5 promises; then nothing of it is kept.
    """
    path = Path(source.cache_dir).expanduser() / source.file_name
    if path.is_file() and _md5(path) == md5:
        return path
    path.unlink(missing_ok=True)
    folder = source.base_url if is_url(source.base_url) else f"file://{Path(source.base_url).expanduser().absolute()}"
    store = open_store(f"{folder.rstrip('/')}/{source.file_name}", source.endpoint_url)
    stored = store.find("")
    if stored is None:
        raise ArchiveError(
            f"{store.address}: no such file; put {source.file_name} (MD5 {md5}) into a folder, "
            "and set ingest.source.base_url to it"
        )
    if stored.size > MOST_BYTES:
        raise ArchiveError(f"{store.address}: {stored.size} bytes are no {source.name}; check ingest.source.base_url")
    download(store, stored, path, "md5", md5)
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
