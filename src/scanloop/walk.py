"""Walk a folder as its reader and its digest both see it: links followed, loops cut, in one order."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("scanloop")


def files_below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, in the order of names; links are followed.

    A link to a folder on the way from the top to the link itself is left out, with a warning: it has no end.

    Yields:
        Paths of files, and of links that lead nowhere.

    Raises:
        OSError: A folder cannot be listed.
    """
    yield from _below(folder, (_identity(folder),))


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        path = folder / entry.name
        if not entry.is_dir():
            yield path
        elif (identity := _identity(path)) in above:
            logger.warning("%s links to a folder that holds it and is not followed", path)
        else:
            yield from _below(path, (*above, identity))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
