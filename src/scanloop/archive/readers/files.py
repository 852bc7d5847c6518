"""Files of a source: where the bytes of each lie, in a directory or in a tar that is never unpacked."""

import os
import posixpath
import tarfile
from pathlib import Path
from typing import NamedTuple

from scanloop.errors import ArchiveError, ImageError
from scanloop.walk import files_below

MAX_FILE_BYTES = 1 << 30
"""Larger files are no slices; they are quarantined unread."""


class SourceFile(NamedTuple):
    """Where a file's bytes lie: its path below the root, and a part of a file on disk, or why there is none."""

    inside: str
    path: Path
    offset: int = 0
    size: int = 0
    fault: str | None = None


def list_files(root: Path) -> list[SourceFile]:
    """Files below a directory or in a tar, sorted by their path inside.

    Raises:
        ArchiveError: The path is missing, a folder cannot be listed, or the tar is broken.
    """
    if not root.exists():
        raise ArchiveError(f"{root}: no such directory or tar file; set ingest.source.path")
    return _list_tar(root) if root.is_file() else _list_directory(root)


def read_bytes(file: SourceFile) -> tuple[bytes, ImageError | None]:
    """Bytes of a file, or none and the reason."""
    if file.fault is not None:
        return b"", ImageError("unreadable", file.fault)
    if file.size > MAX_FILE_BYTES:
        return b"", ImageError("too_large", f"{file.size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        with file.path.open("rb") as stream:
            stream.seek(file.offset)
            return stream.read(file.size), None
    except OSError as error:
        return b"", ImageError("unreadable", f"{type(error).__name__}: {error.strerror}")


def _list_directory(root: Path) -> list[SourceFile]:
    """Files below a directory, sorted; links are followed, except into a folder that holds them."""
    files = []
    try:
        for path in files_below(root):
            inside = _text(path.relative_to(root).as_posix())
            if path.is_file():
                files.append(SourceFile(inside, path, 0, path.stat().st_size))
            else:
                files.append(SourceFile(inside, path, fault="not a regular file, or a link to nothing"))
    except OSError as error:
        raise ArchiveError(f"{error.filename}: cannot be listed ({error.strerror}); grant read access") from error
    return sorted(files)


def _list_tar(path: Path) -> list[SourceFile]:
    """Files in a tar, sorted, each with its position; of members with one name the last counts, as for tar itself."""
    files: dict[str, SourceFile] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
                inside = _clean(member.name)
                if member.isreg() and not member.issparse():
                    files[inside] = SourceFile(inside, path, member.offset_data, member.size)
                elif member.islnk() or member.issym():
                    base = posixpath.dirname(member.name) if member.issym() else ""
                    links[inside] = _clean(posixpath.join(base, member.linkname))
                elif not member.isdir():
                    files[inside] = SourceFile(inside, path, fault="a sparse or special member of the tar")
    except (tarfile.TarError, OSError) as error:
        raise ArchiveError(
            f"{path}: not a whole, uncompressed tar ({error}); decompress it or copy it again"
        ) from error
    for inside, target in links.items():
        missing = SourceFile(inside, path, fault="a link to a file that is not in the tar")
        files[inside] = files.get(target, missing)._replace(inside=inside)
    return sorted(files.values())


def _clean(name: str) -> str:
    """Path of a tar's member without leading "./" or "/"."""
    return posixpath.normpath(_text(name)).lstrip("/")


def _text(name: str) -> str:
    """Name as valid Unicode: bytes that are none stand as backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
