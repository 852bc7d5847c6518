"""How an artifact takes an older one's place: under a lock, by renaming, whole whenever the process dies."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger("scanloop")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock beside an artifact; what a killed process left of a swap is tidied up."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(f".{output.name}.lock"))
    try:
        lock.acquire(timeout=2)
    except Timeout:
        logger.info("%s: another process is writing it; waiting for it to finish or die", output)
        lock.acquire()
    try:
        if not output.exists() and retired(output).exists():  # killed between the two renames of a swap
            retired(output).rename(output)
        shutil.rmtree(retired(output), ignore_errors=True)
        yield
    finally:
        lock.release()


@contextmanager
def edited(output: Path) -> Iterator[Path]:
    """A copy of an artifact to change; it takes the artifact's place when the block ends without an error.

    Whenever the process dies, the artifact is the old one or the new one, at the latest when it is locked again.
    """
    with locked(output):
        copy = output.with_name(f".{output.name}.edited")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(output, copy)
        yield copy
        swap(copy, output)


def swap(new: Path, output: Path) -> None:
    """Put a complete directory in an artifact's place; call it under the lock."""
    if output.exists():
        output.rename(retired(output))
    new.rename(output)
    shutil.rmtree(retired(output), ignore_errors=True)


def retired(output: Path) -> Path:
    """Where an artifact lies for the moment between two renames."""
    return output.with_name(f".{output.name}.retired")
