"""Folders of killed steps: journals, thumbnails and shards of anyone, under no record yet. They go as a whole."""

import shutil
from pathlib import Path

from scanloop.erasure.search import traces
from scanloop.erasure.subject import Subject

PATTERNS = (".*.partial", ".*.retired")


def leftovers(run: Path) -> list[Path]:
    """Folders in a run that killed steps left."""
    return sorted(path for pattern in PATTERNS for path in run.glob(pattern) if path.is_dir())


def name_of(leftover: Path) -> str:
    """Artifact that a killed step was making.

    >>> name_of(Path("run/.catalog.partial"))
    'catalog'
    """
    return leftover.name[1:].rpartition(".")[0]


def holds(run: Path, subject: Subject) -> bool:
    """Whether a killed step had taken in something of the patient."""
    return any(
        traces((path for path in sorted(folder.rglob("*")) if path.is_file()), subject) for folder in leftovers(run)
    )


def remove_leftovers(run: Path) -> None:
    """Remove these folders, and what killed writes left; a step that was killed begins anew."""
    for folder in leftovers(run):
        shutil.rmtree(folder, ignore_errors=True)
    for path in run.rglob("*.tmp"):
        path.unlink(missing_ok=True)
