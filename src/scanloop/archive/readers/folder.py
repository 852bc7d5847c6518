"""Class folders with labels beside a folder without, in a directory or in a tar that is never unpacked."""

import logging
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from scanloop.archive.readers.record import RawImage
from scanloop.config import FolderSource
from scanloop.errors import ArchiveError, ImageError
from scanloop.walk import files_below

logger = logging.getLogger("scanloop")

MAX_FILE_BYTES = 1 << 30
"""Larger files are no slices; they are quarantined unread."""


class _File(NamedTuple):
    """Where a file's bytes lie: its path below the root, and a part of a file on disk, or why there is none."""

    inside: str
    path: Path
    offset: int = 0
    size: int = 0
    fault: str | None = None


def read_folder(source: FolderSource) -> Iterator[RawImage]:
    """Every file in the labelled and the unlabelled folder, whatever its suffix, sorted by uri.

    A uri is the name of the directory or tar and the path inside. An image's class is the folder below the labelled
    folder; one that lies directly in the labelled folder is unlabelled. Files elsewhere are counted and logged.

    Raises:
        ArchiveError: The path or the labelled folder is missing, the tar is broken, or there is no file.
    """
    root = Path(source.path)
    if not root.exists():
        raise ArchiveError(f"{root}: no such directory or tar file; set ingest.source.path")
    files = _list_tar(root) if root.is_file() else _list_directory(root)
    placed = [(file, _place(file.inside, source)) for file in files]
    images = [(file, place) for file, place in placed if place is not None]
    _refuse_unusable(root, source, files, [file for file, _ in images])
    if elsewhere := len(files) - len(images):
        logger.info("%s: %d files outside of the image folders are left aside", root.name, elsewhere)
    patient = re.compile(source.patient_pattern) if source.patient_pattern else None
    for file, place in images:
        found = patient.search(file.inside) if patient else None
        payload, fault = _read(file)
        yield RawImage(
            uri=f"{root.absolute().name}/{file.inside}",
            payload=payload,
            label=place or None,
            patient_id=found[1] if found else None,
            fault=fault,
        )


def _place(inside: str, source: FolderSource) -> str | None:
    """Class of a labelled file, "" of an unlabelled one, None of a file that is no image of the archive."""
    folders = PurePosixPath(inside).parts[:-1]
    labelled, unlabelled = (_end(folders, name) for name in (source.labelled_dir, source.unlabelled_dir))
    if labelled is None and unlabelled is None:
        return None
    # Of two that match, the inner folder says what the file is.
    if labelled is None or (unlabelled is not None and unlabelled > labelled):
        return ""
    return folders[labelled] if labelled < len(folders) else ""


def _end(folders: tuple[str, ...], name: str) -> int | None:
    """Number of leading folders up to the first occurrence of a folder, which may be nested or "." for the root."""
    wanted = PurePosixPath(name).parts
    for start in range(len(folders) - len(wanted) + 1):
        if folders[start : start + len(wanted)] == wanted:
            return start + len(wanted)
    return None


def _refuse_unusable(root: Path, source: FolderSource, files: list[_File], images: list[_File]) -> None:
    if not files:
        raise ArchiveError(f"{root} holds no file; put class folders below {source.labelled_dir!r} in it")
    if not any(_end(PurePosixPath(file.inside).parts[:-1], source.labelled_dir) is not None for file in files):
        found = sorted({folder for file in files for folder in PurePosixPath(file.inside).parts[:-1]})
        raise ArchiveError(
            f"{root} holds no folder {source.labelled_dir!r} with files; set ingest.source.labelled_dir "
            f"(folders found: {', '.join(found[:20]) or 'none'})"
        )
    if not any(_place(file.inside, source) for file in images):
        raise ArchiveError(f"{root}: {source.labelled_dir!r} holds no class folders; make one a class, named after it")


def _list_directory(root: Path) -> list[_File]:
    """Files below a directory, sorted; links are followed, except into a folder that holds them."""
    files = []
    try:
        for path in files_below(root):
            inside = _text(path.relative_to(root).as_posix())
            if path.is_file():
                files.append(_File(inside, path, 0, path.stat().st_size))
            else:
                files.append(_File(inside, path, fault="not a regular file, or a link to nothing"))
    except OSError as error:
        raise ArchiveError(f"{error.filename}: cannot be listed ({error.strerror}); grant read access") from error
    return sorted(files)


def _list_tar(path: Path) -> list[_File]:
    """Files in a tar, sorted, each with its position; of members with one name the last counts, as for tar itself."""
    files: dict[str, _File] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
                inside = _clean(member.name)
                if member.isreg() and not member.issparse():
                    files[inside] = _File(inside, path, member.offset_data, member.size)
                elif member.islnk() or member.issym():
                    base = posixpath.dirname(member.name) if member.issym() else ""
                    links[inside] = _clean(posixpath.join(base, member.linkname))
                elif not member.isdir():
                    files[inside] = _File(inside, path, fault="a sparse or special member of the tar")
    except (tarfile.TarError, OSError) as error:
        raise ArchiveError(
            f"{path}: not a whole, uncompressed tar ({error}); decompress it or copy it again"
        ) from error
    for inside, target in links.items():
        missing = _File(inside, path, fault=f"a link to {target}, which is not in the tar")
        files[inside] = files.get(target, missing)._replace(inside=inside)
    return sorted(files.values())


def _read(file: _File) -> tuple[bytes, ImageError | None]:
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


def _clean(name: str) -> str:
    """Path of a tar's member without leading "./" or "/"."""
    return posixpath.normpath(_text(name)).lstrip("/")


def _text(name: str) -> str:
    """Name as valid Unicode: bytes that are none stand as backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
