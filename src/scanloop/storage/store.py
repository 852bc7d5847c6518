"""What every store can do, whatever lies behind it."""

from pathlib import Path
from typing import NamedTuple, Protocol

from scanloop.errors import ConfigError
from scanloop.storage.address import Address
from scanloop.storage.patience import PassingError, Patience

MOST_BYTES = 1 << 30
"""Largest object, or part of one, that is read into memory."""


class Stored(NamedTuple):
    """An object as a store lists it: its key below the address, bytes, and what changes when it does, if known."""

    key: str
    size: int
    version: str | None


class Store(Protocol):
    """Objects below one address. Safe to use from several threads; every failure is a StorageError in one line."""

    address: Address

    def objects(self) -> list[Stored]:
        """Objects below the address, sorted by key; one with an empty key where the address is that of an object."""

    def find(self, key: str) -> Stored | None:
        """The object with this key, if there is one."""

    def read(self, stored: Stored) -> bytes:
        """All bytes of an object, checked against the checksum that the store knows, if any.

        Raises:
            ObjectGoneError: It is gone, or is another one by now.
            StorageError: It is too large, or cannot be read.
        """

    def read_part(self, stored: Stored, offset: int, size: int) -> bytes:
        """Exactly these bytes of an object; checked by their number alone.

        Raises:
            ObjectGoneError: It is gone, or is another one by now.
            StorageError: It cannot be read.
        """

    def put(self, key: str, path: Path) -> None:
        """Make an object of a file: whole, its checksum verified by the store, or not at all.

        Raises:
            StorageError: It cannot be written.
        """

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""


def open_store(url: str, endpoint_url: str | None = None, patience: Patience | None = None) -> Store:
    """Store of the objects below an address.

    Args:
        url: "s3://bucket/prefix", or an address of any scheme that fsspec knows here.
        endpoint_url: Of an S3 server other than Amazon's.
        patience: How often is tried what fails.

    Raises:
        ConfigError: The address is none, holds a credential, or is of an unknown scheme; or a library is missing.
    """
    try:
        address = Address.parse(url)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if address.scheme == "s3":
        from scanloop.storage.s3 import S3Store

        return S3Store(address, endpoint_url, patience or Patience())
    from scanloop.storage.filesystem import FilesystemStore

    return FilesystemStore(address, patience or Patience())


def whole(payload: bytes, size: int) -> bytes:
    """The payload, if it has this size.

    Raises:
        PassingError: It is short or long.
    """
    if len(payload) != size:
        raise PassingError(f"{len(payload)} of {size} bytes came")
    return payload
