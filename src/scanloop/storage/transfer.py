"""Folders to a store and back: each object whole or absent, and the manifest that makes them a folder last."""

import json
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from scanloop.errors import StorageError
from scanloop.storage.download import download
from scanloop.storage.store import Store
from scanloop.walk import files_below

T = TypeVar("T")

MANIFEST = "scanloop-manifest.json"
MOST_MANIFEST_BYTES = 256 << 20
THREADS = 8


@dataclass(frozen=True)
class Transfer:
    """What lies at the other end now.

    Attributes:
        files: Files, without the manifest.
        bytes: Their sizes.
    """

    files: int
    bytes: int


def push(folder: Path, store: Store) -> Transfer:
    """Put a folder's files below the store's address; what is there already is not sent again. Hidden files stay.

    Files get their objects first and the manifest comes last, so that a folder can be pulled when it is whole. One that
    is pushed over another cannot be pulled in between: its old manifest goes first.

    Raises:
        StorageError: The folder is missing or empty, or the store refuses or does not answer; push again to go on.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder; give one that a step or a run has filled")
    paths = {path.relative_to(folder).as_posix(): path for path in files_below(folder) if path.is_file()}
    paths = {name: path for name, path in paths.items() if not _hidden(name) and name != MANIFEST}
    if not paths:
        raise StorageError(f"{folder} holds no file; give a folder that a step or a run has filled")
    files = {name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for name, path in sorted(paths.items())}
    manifest = json.dumps({"schema_version": 1, "files": files}, indent=1, sort_keys=True).encode()
    if (there := store.find(MANIFEST)) is not None and store.read(there) != manifest:
        store.delete(MANIFEST)
    _each(sorted(paths.items()), lambda item: store.put(*item))
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch, MANIFEST)
        written.write_bytes(manifest)
        store.put(MANIFEST, written)
    return Transfer(len(files), sum(int(str(entry["bytes"])) for entry in files.values()))


def pull(store: Store, folder: Path) -> Transfer:
    """Fetch a folder that was pushed; it appears when all of its files are there and have the manifest's SHA-256.

    Raises:
        StorageError: There is no whole folder at the address, `folder` exists, or a file is missing or damaged; what is
            right so far is kept in a hidden folder beside it: pull again to go on.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists; remove it, or pull into another folder")
    files = _manifest(store)
    partial = folder.with_name(f".{folder.name}.pull")

    def fetch(item: tuple[str, dict[str, Any]]) -> None:
        name, entry = item
        path = partial / name
        if path.is_file() and _sha256(path) == entry["sha256"]:
            return
        stored = store.find(name)
        if stored is None:
            raise StorageError(f"{store.address}/{name} is missing; push the folder again")
        download(store, stored, path, "sha256", entry["sha256"])

    _each(sorted(files.items()), fetch)
    for path in list(files_below(partial)):
        if path.relative_to(partial).as_posix() not in files:
            path.unlink()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(folder)
    return Transfer(len(files), sum(int(entry["bytes"]) for entry in files.values()))


def _manifest(store: Store) -> dict[str, dict[str, Any]]:
    stored = store.find(MANIFEST)
    if stored is None:
        raise StorageError(f"{store.address}: no whole folder lies there ({MANIFEST} is missing); push it again")
    if stored.size > MOST_MANIFEST_BYTES:
        raise StorageError(f"{store.address}/{MANIFEST}: {stored.size} bytes are no manifest; push the folder again")
    try:
        files: dict[str, dict[str, Any]] = json.loads(store.read(stored))["files"]
        for name, entry in files.items():
            if not _is_inside(name) or len(entry["sha256"]) != 64 or int(entry["bytes"]) < 0:
                raise ValueError(name)  # noqa: TRY301  told below as one message
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{store.address}/{MANIFEST} is damaged ({error}); push the folder again") from error
    return files


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and "\\" not in name and ".." not in parts and not _hidden(name)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _each(items: Iterable[T], do: Callable[[T], None]) -> None:
    """Do something with each item, several at a time; the first error ends it."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="transfer") as pool:
        waiting = [pool.submit(do, item) for item in items]
        try:
            for one in waiting:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)
