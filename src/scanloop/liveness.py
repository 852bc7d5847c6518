"""Whether the run that started this process still lives, and for how long an attempt has worked."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scanloop.artifacts import write_bytes
from scanloop.errors import ScanloopError

OWNER_VARIABLE = "SCANLOOP_OWNER"
HEARTBEAT_SECONDS = 1.0


def own_children() -> None:
    """Make this process the owner of those that it starts from here on: they end when it is killed."""
    os.environ[OWNER_VARIABLE] = process_identity(os.getpid())


def process_identity(pid: int) -> str:
    """Name of a process that no later process shares, though its number may: "pid:time of its start"; "" of none.

    A process that was killed and not yet reaped by its parent is none. Where the system has no /proc, the name is
    the number alone.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else f"{pid}:{fields[19]}"  # proc(5): state, and starttime, 19 fields later
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return str(pid)
    except ProcessLookupError:
        return ""
    return str(pid)


def end_without_owner() -> None:
    """End this process at once when the run that owns it is gone: what it makes belongs to a newer run."""
    owner = os.environ.get(OWNER_VARIABLE)
    if owner and process_identity(int(owner.partition(":")[0])) != owner:
        os._exit(ScanloopError.exit_code)


@contextmanager
def owned() -> Iterator[None]:
    """End this process soon after the run that owns it: while it waits for a lock as well as while it works."""
    end_without_owner()
    with _every_second(end_without_owner):
        yield


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Note every second in a file of `folder` how long this attempt has run; `seconds_worked` adds them up."""
    started = time.monotonic()
    beat = folder / f"{time.time_ns()}.seconds"

    def note() -> None:
        write_bytes(beat, f"{time.monotonic() - started:.3f}".encode())

    def note_if_there() -> None:
        if folder.is_dir():
            note()

    note()
    try:
        with _every_second(note_if_there):
            yield
    finally:
        note_if_there()


def seconds_worked(folder: Path) -> float:
    """Seconds that all attempts noted in a folder took together."""
    return sum(float(beat.read_text()) for beat in folder.glob("*.seconds"))


@contextmanager
def _every_second(work: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            work()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
