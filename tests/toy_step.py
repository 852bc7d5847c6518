"""A step small enough to be killed at every one of its file operations: what the tests of `@step` run and kill."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scanloop.artifacts import is_exempt, write_bytes, write_json
from scanloop.build import scratch, step
from scanloop.config import OracleConfig
from scanloop.provenance import Source

MUTATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}
LOG = "bodies.txt"


@dataclass(frozen=True)
class ToySummary:
    rows: int
    as_of: str


def log_of(output: Path) -> list[str]:
    """What each body did that ran for an artifact beside the log."""
    path = output.parent / LOG
    return path.read_text().split() if path.exists() else []


@step("promotion", sources=lambda _: [Source(path)] if (path := os.environ.get("TOY_SOURCE")) else [])
def toy(config: OracleConfig, *, labels: Path | None = None, output: Path) -> ToySummary:
    checkpoint = scratch(output) / "half"
    with (output.parent / LOG).open("a") as log:
        log.write("continued\n" if checkpoint.exists() else "began\n")
    if not checkpoint.exists():
        write_bytes(checkpoint, b"half")
        if os.environ.get("TOY_MODE") == "die":
            os._exit(9)
    if os.environ.get("TOY_MODE") == "fail":
        raise RuntimeError("the disk said no")
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    write_bytes(output / "deep" / "table.parquet", checkpoint.read_bytes() * 100)
    write_bytes(output / "page.html", str(time.time()).encode())
    write_json(output / "promotion.json", {"as_of": config.as_of, "labels": labels is not None})
    return ToySummary(1, config.as_of)


def files_of(artifact: Path, exempt: bool = False) -> dict[str, bytes]:
    """Bytes of the files of an artifact by name."""
    paths = sorted(path for path in artifact.rglob("*") if path.is_file() and (exempt or not is_exempt(path)))
    return {str(path.relative_to(artifact)): path.read_bytes() for path in paths}


def _in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_at(operation: int) -> None:
    """End this process just before its file operation of this number."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        reading = event == "open" and (arguments[1] in ("r", "rb") or str(arguments[0]).startswith("/proc"))
        if event in MUTATIONS and not reading:
            seen += 1
            if seen == operation:
                os._exit(9)

    sys.addaudithook(hook)


def sweep(folder: Path) -> int:
    """Kill the step before each of its file operations in turn, start it again, and compare with one left alone.

    Returns:
        How many operations there were.
    """
    old, new = OracleConfig(seed=1), OracleConfig(seed=2)
    assert _in_child(lambda: toy(new, output=folder / "alone" / "promotion")) == 0
    wanted = files_of(folder / "alone" / "promotion")
    operation = 0
    while True:
        operation += 1
        output = folder / str(operation) / "promotion"
        assert _in_child(lambda path=output: toy(old, output=path)) == 0
        killed = _in_child(lambda path=output, at=operation: (_die_at(at), toy(new, output=path)))
        assert _in_child(lambda path=output: toy(new, output=path)) == 0
        assert files_of(output) == wanted, f"killed before operation {operation}: other bytes"
        left = {path.name for path in output.parent.iterdir()} - {"promotion", ".promotion.lock", LOG}
        assert not left, f"killed before operation {operation}: {left} left behind"
        if killed == 0:
            return operation


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        print(sweep(Path(sys.argv[2])))
    else:
        toy(OracleConfig(seed=int(sys.argv[1])), output=Path(sys.argv[2]))
