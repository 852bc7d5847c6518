"""Class folders with labels beside a folder without, in a directory or in a tar that is never unpacked."""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from scanloop.archive.identities import hidden_order
from scanloop.archive.readers.files import SourceFile, later, list_files
from scanloop.archive.readers.labels import kept_labels
from scanloop.archive.readers.record import RawImage
from scanloop.errors import ArchiveError
from scanloop.sources import FolderSource
from scanloop.storage.address import archive_name

logger = logging.getLogger("scanloop")


def read_folder(source: FolderSource) -> Iterator[RawImage]:
    """Every file in the labelled and the unlabelled folder, whatever its suffix, sorted by uri.

    Sorted by pseudonym where the source is de-identified: an alphabetical order would tell whose is whose.

    A uri is the name of the directory or tar and the path inside. An image's class is the folder below the labelled
    folder; one that lies directly in the labelled folder is unlabelled. Files elsewhere are counted and logged.

    Raises:
        ArchiveError: The path or the labelled folder is missing, the tar is broken, or there is no file.
    """
    root = archive_name(source.path)
    files = list_files(source.path, source.endpoint_url)
    order = hidden_order(source)
    files.sort(key=lambda file: order(file.inside))
    places = [_place(file.inside, source) for file in files]
    _refuse_unusable(source.path, source, files, places)
    if elsewhere := places.count(None):
        logger.info("%s: %d files outside of the image folders are left aside", root, elsewhere)
    patient = re.compile(source.patient_pattern) if source.patient_pattern else None
    kept = kept_labels([place or None for place in places], source.labelled, source.seed)
    for file, place, keep in zip(files, places, kept, strict=True):
        if place is None:
            continue
        found = patient.search(file.inside) if patient else None
        yield RawImage(
            uri=f"{root}/{file.inside}",
            payload=later(file),
            label=(place or None) if keep else None,
            hidden_label=None if keep else place,
            patient_id=found[1] if found else None,
            version=file.version,
        )


def _place(inside: str, source: FolderSource) -> str | None:
    """Class of a labelled file, "" of an unlabelled one, None of a file that is no image of the archive."""
    folders = _folders(inside)
    labelled, unlabelled = _first_end(folders, _labelled_dirs(source)), _end(folders, source.unlabelled_dir)
    if labelled is None and unlabelled is None:
        return None
    # Of two that match, the inner folder says what the file is.
    if labelled is None or (unlabelled is not None and unlabelled > labelled):
        return ""
    return sys.intern(folders[labelled]) if labelled < len(folders) else ""


def _folders(inside: str) -> tuple[str, ...]:
    """Folders of a path; those of millions of files leave no trace in the table of names that a `Path` fills."""
    return tuple(part for part in inside.split("/")[:-1] if part not in ("", "."))


def _labelled_dirs(source: FolderSource) -> tuple[str, ...]:
    return (source.labelled_dir,) if isinstance(source.labelled_dir, str) else source.labelled_dir


def _first_end(folders: tuple[str, ...], names: tuple[str, ...]) -> int | None:
    return min((end for name in names if (end := _end(folders, name)) is not None), default=None)


def _end(folders: tuple[str, ...], name: str) -> int | None:
    """Number of leading folders up to the first occurrence of a folder, which may be nested or "." for the root."""
    wanted = PurePosixPath(name).parts
    for start in range(len(folders) - len(wanted) + 1):
        if folders[start : start + len(wanted)] == wanted:
            return start + len(wanted)
    return None


def _refuse_unusable(root: str, source: FolderSource, files: list[SourceFile], places: list[str | None]) -> None:
    if not files:
        raise ArchiveError(f"{root} holds no file; put class folders below {source.labelled_dir!r} in it")
    labelled_dirs = _labelled_dirs(source)
    if not any(_first_end(_folders(file.inside), labelled_dirs) is not None for file in files):
        found = sorted({folder for file in files for folder in _folders(file.inside)})
        listed = "" if source.deidentify else f" (folders found: {', '.join(found[:20]) or 'none'})"
        raise ArchiveError(
            f"{root} holds no folder {source.labelled_dir!r} with files; set ingest.source.labelled_dir{listed}"
        )
    if not any(places):
        raise ArchiveError(f"{root}: {source.labelled_dir!r} holds no class folders; make one a class, named after it")
