"""Files of a source: where the bytes of each lie, in a directory, in a store or in a tar that is never unpacked."""

import os
import posixpath
import tarfile
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from scanloop.archive.readers.record import Later
from scanloop.errors import ArchiveError, ImageError, ObjectGoneError
from scanloop.storage.address import is_remote, local_path
from scanloop.storage.ranges import RangeFile
from scanloop.storage.store import Store, open_store
from scanloop.walk import files_below

MAX_FILE_BYTES = 1 << 30
"""Larger files are no slices; they are quarantined unread."""


class SourceFile(NamedTuple):
    """A file's path below the root and where its bytes lie, in a file on disk or in a store, or why there are none.

    `version` changes when the file does: its time of change and its size, or its ETag; of a tar's member, those of the
    tar. None where a store tells no such thing. What lies in a store has a `read`, and else `place` is the file on
    disk, or the folder below which it lies, `is_below`: a list of millions of files holds one path.
    """

    inside: str
    place: Path
    offset: int = 0
    size: int = 0
    fault: str | None = None
    version: str | None = None
    read: Callable[[], bytes] | None = None
    is_below: bool = False

    @property
    def path(self) -> Path:
        """The file on disk."""
        return self.place / self.inside if self.is_below else self.place


def list_files(location: str | Path, endpoint_url: str | None = None) -> list[SourceFile]:
    """Files below a directory or an address, or in a tar, sorted by their path inside.

    Args:
        location: Directory, tar file, or address of either.
        endpoint_url: Of an S3 server other than Amazon's.

    Raises:
        ArchiveError: The path is missing, a folder cannot be listed, or the tar is broken.
        StorageError: The store refuses or does not answer.
    """
    if is_remote(str(location)):
        return _list_store(open_store(str(location), endpoint_url))
    root = local_path(str(location))
    if not root.exists():
        raise ArchiveError(f"{root}: no such directory or tar file; set ingest.source.path")
    return _list_local_tar(root) if root.is_file() else _list_directory(root)


def read_whole(location: str, endpoint_url: str | None = None) -> bytes:
    """Bytes of one file, at most `MAX_FILE_BYTES`.

    Raises:
        ArchiveError: It is missing, too large, or cannot be read.
        StorageError: The store refuses or does not answer.
    """
    if is_remote(location):
        store = open_store(location, endpoint_url)
        stored = store.find("")
        if stored is None:
            raise ArchiveError(f"{store.address}: no such object")
        return store.read(stored)
    path = local_path(location)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ArchiveError(f"{path}: {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror})") from error


def later(file: SourceFile) -> Later:
    """The file, to be read when it is asked for."""
    return Later(file.size, partial(read_bytes, file))


def read_bytes(file: SourceFile) -> bytes:
    """Bytes of a file.

    Raises:
        ImageError: It is no regular file, too large, gone, or cannot be read.
        StorageError: The store refuses or does not answer, which is no fault of the file.
    """
    if file.fault is not None:
        raise ImageError("unreadable", file.fault)
    if file.size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"{file.size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        if file.read is not None:
            return file.read()
        with file.path.open("rb") as stream:
            stream.seek(file.offset)
            return stream.read(file.size)
    except ObjectGoneError as error:
        raise ImageError("unreadable", "it is gone, or another one than was listed") from error
    except OSError as error:
        raise ImageError("unreadable", f"{type(error).__name__}: {error.strerror}") from error


def _list_directory(root: Path) -> list[SourceFile]:
    """Files below a directory, sorted; links are followed, except into a folder that holds them."""
    files = []
    try:
        for path in files_below(root):
            name = path.relative_to(root).as_posix()
            inside = _text(name)
            lies = {"place": root, "is_below": True} if inside == name else {"place": path}
            if path.is_file():
                status = path.stat()
                files.append(SourceFile(inside, size=status.st_size, version=_version(status), **lies))
            else:
                files.append(SourceFile(inside, fault="not a regular file, or a link to nothing", **lies))
    except OSError as error:
        raise ArchiveError(f"{error.filename}: cannot be listed ({error.strerror}); grant read access") from error
    files.sort(key=itemgetter(0))
    return files


def _list_store(store: Store) -> list[SourceFile]:
    """Objects below an address, or members of the tar that it is."""
    found = store.objects()
    if not found:
        raise ArchiveError(f"{store.address}: nothing is stored there; set ingest.source.path")
    nowhere = Path()
    if found[0].key:
        return [SourceFile(one.key, nowhere, 0, one.size, None, one.version, partial(store.read, one)) for one in found]
    (tar,) = found

    def member(inside: str, offset: int, size: int) -> SourceFile:
        version = f"{tar.version}:{offset}" if tar.version else None
        return SourceFile(inside, nowhere, offset, size, None, version, partial(store.read_part, tar, offset, size))

    return _list_tar(str(store.address), cast(BinaryIO, RangeFile(store, tar)), member)


def _list_local_tar(path: Path) -> list[SourceFile]:
    def member(inside: str, offset: int, size: int) -> SourceFile:
        return SourceFile(inside, path, offset, size, None, f"{version}:{offset}")

    try:
        version = _version(path.stat())
        with path.open("rb") as stream:
            return _list_tar(str(path), stream, member)
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror}); grant read access") from error


def _list_tar(name: str, stream: BinaryIO, member_at: Callable[[str, int, int], SourceFile]) -> list[SourceFile]:
    """Files in a tar, sorted, each with its position; of members with one name the last counts, as for tar itself."""
    files: dict[str, SourceFile] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
                inside = _clean(member.name)
                if member.isreg() and not member.issparse():
                    files[inside] = member_at(inside, member.offset_data, member.size)
                elif member.islnk() or member.issym():
                    base = posixpath.dirname(member.name) if member.issym() else ""
                    links[inside] = _clean(posixpath.join(base, member.linkname))
                elif not member.isdir():
                    files[inside] = SourceFile(inside, Path(inside), fault="a sparse or special member of the tar")
    except (tarfile.TarError, OSError) as error:
        raise ArchiveError(
            f"{name}: not a whole, uncompressed tar ({error}); decompress it or copy it again"
        ) from error
    for inside, target in links.items():
        missing = SourceFile(inside, Path(inside), fault="a link to a file that is not in the tar")
        files[inside] = files.get(target, missing)._replace(inside=inside)
    return [files[inside] for inside in sorted(files)]


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}:{status.st_size}"


def _clean(name: str) -> str:
    """Path of a tar's member without leading "./" or "/"."""
    return posixpath.normpath(_text(name)).lstrip("/")


def _text(name: str) -> str:
    """Name as valid Unicode: bytes that are none stand as backslash escapes, which no other name reads as."""
    return os.fsencode(name).replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")
