"""Fetch one object into a file: in ranges, going on where an earlier attempt stood, whole and right or not at all."""

import hashlib
import os
from pathlib import Path

from scanloop.errors import StorageError
from scanloop.storage.store import Store, Stored

RANGE_BYTES = 8 << 20


def download(store: Store, stored: Stored, path: Path, algorithm: str, digest: str) -> None:
    """Make `path` the object's bytes.

    What has come lies in a hidden file beside it, named after the digest, until all of it has come and is right. A
    wrong one is removed; where an earlier attempt had left some of it, all of it is fetched once more.

    Args:
        store: Where it lies.
        stored: The object.
        path: File to make.
        algorithm: "md5" or "sha256".
        digest: What the bytes must have, in hexadecimal.

    Raises:
        StorageError: The object cannot be read, or does not have the digest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{digest[:16]}.part")
    resumed = part.is_file() and part.stat().st_size > 0
    for _ in range(2 if resumed else 1):
        _fetch(store, stored, part)
        if _digest(part, algorithm) == digest:
            part.replace(path)
            return
        part.unlink()
    raise StorageError(
        f"{store.address}{f' {stored.key}' if stored.key else ''}: its {algorithm.upper()} is not {digest}: it was "
        "removed here; the object is damaged or another one: put it there again, or give another address"
    )


def _fetch(store: Store, stored: Stored, part: Path) -> None:
    with part.open("ab") as file:
        if file.tell() > stored.size:
            file.truncate(0)
        while (at := file.seek(0, os.SEEK_END)) < stored.size:
            file.write(store.read_part(stored, at, min(RANGE_BYTES, stored.size - at)))
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
