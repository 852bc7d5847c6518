"""Every other scheme that fsspec knows here: https, file, memory, gs, ..."""

import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from scanloop.errors import ConfigError, ObjectGoneError, StorageError
from scanloop.storage.address import Address
from scanloop.storage.patience import PassingError, Patience
from scanloop.storage.store import MOST_BYTES, Stored, whole

T = TypeVar("T")

_VERSIONS = ("ETag", "etag", "version_aware_id", "generation", "mtime", "LastModified", "last_modified", "created")
"""What fsspec's filesystems call that which changes when a file does; the first that is there counts."""
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class FilesystemStore:
    """Objects below an address of fsspec's. Reads of parts are checked by their number, whole ones by their size."""

    def __init__(self, address: Address, patience: Patience) -> None:
        import fsspec

        self.address = address
        self.patience = patience
        try:
            self._files: Any = fsspec.filesystem(address.scheme)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{address.scheme}:// cannot be read here: {error}") from None
        self._root = str(address) if address.scheme in {"http", "https"} else self._files._strip_protocol(str(address))

    def objects(self) -> list[Stored]:
        """Objects below the address, sorted by key; one with an empty key where the address is that of an object."""
        own = self.find("")
        if own is not None:
            return [own]
        try:
            found = self._try("list", "", lambda: self._files.find(self._root, detail=True))
        except ObjectGoneError:
            return []
        prefix = f"{self._root.rstrip('/')}/"
        return sorted(_stored(path.removeprefix(prefix), facts) for path, facts in found.items())

    def find(self, key: str) -> Stored | None:
        """The object with this key, if there is one."""
        try:
            facts = self._try("look up", key, lambda: self._files.info(self._path(key)))
        except ObjectGoneError:
            return None
        return _stored(key, facts) if facts["type"] == "file" else None

    def read(self, stored: Stored) -> bytes:
        """All bytes of an object."""
        if stored.size > MOST_BYTES:
            raise StorageError(f"{self.name(stored.key)}: {stored.size} bytes; at most {MOST_BYTES} are read at once")
        return self.read_part(stored, 0, stored.size)

    def read_part(self, stored: Stored, offset: int, size: int) -> bytes:
        """Exactly these bytes of an object."""
        if size == 0:
            return b""
        part = {} if size == stored.size else {"start": offset, "end": offset + size}
        return self._try(
            f"read bytes {offset} to {offset + size - 1} of",
            stored.key,
            lambda: whole(self._files.cat_file(self._path(stored.key), **part), size),
        )

    def put(self, key: str, path: Path) -> None:
        """Make an object of a file; in a local folder by a rename, elsewhere by one put."""

        def attempt() -> None:
            target = self._path(key)
            self._files.makedirs(posixpath.dirname(target), exist_ok=True)
            if self.address.scheme != "file":
                self._files.put_file(str(path), target)
                return
            self._files.put_file(str(path), f"{target}.tmp")
            Path(f"{target}.tmp").replace(target)

        self._try("write", key, attempt)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        if self.find(key) is not None:
            self._try("delete", key, lambda: self._files.rm_file(self._path(key)))

    def name(self, key: str) -> str:
        """Address of an object, for messages."""
        return "/".join(part for part in (str(self.address).rstrip("/"), key) if part)

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root

    def _try(self, verb: str, key: str, call: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return call()
            except (PassingError, StorageError):
                raise
            except FileNotFoundError as error:
                cause = error.__cause__  # over HTTP every failure to look up is called so
                if isinstance(cause, Exception) and getattr(cause, "status", 0) != 404:
                    _explain(self.name(key), cause)
                raise ObjectGoneError(f"{self.name(key)}: there is no such object; check the address") from None
            except PermissionError:
                raise StorageError(f"{self.name(key)}: not allowed; check the rights") from None
            except NotImplementedError:
                raise StorageError(f"{self.name(key)}: {self.address.scheme}:// cannot do this ({verb})") from None
            except Exception as error:  # each of fsspec's filesystems raises its own
                _explain(self.name(key), error)

        return self.patience.try_for(f"{verb} {self.name(key)}", attempt)


def _explain(subject: str, error: Exception) -> NoReturn:
    status = getattr(error, "status", None)
    if isinstance(status, int) and status and status not in _PASSING_STATUS:
        raise StorageError(f"{subject}: refused ({status}); check the address and your rights") from None
    asked = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
    detail = f"the server answers {status}" if status else f"the connection failed ({type(error).__name__})"
    raise PassingError(detail, float(asked) if asked.isdigit() else None) from None


def _stored(key: str, facts: dict[str, Any]) -> Stored:
    size = facts.get("size")
    if size is None:
        raise StorageError(f"{facts.get('name', key)}: the server does not tell its size; copy it to a folder or to S3")
    version = next((f"{facts[name]}:{size}" for name in _VERSIONS if facts.get(name) is not None), None)
    return Stored(key, int(size), version)
