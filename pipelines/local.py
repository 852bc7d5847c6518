"""Run a pipeline on this machine through KFP's local runner: each step a subprocess, each artifact a folder."""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from google.protobuf import json_format
from kfp import local

from pipelines.registry import IMPORTED, PIPELINES, Request
from scanloop.artifacts import read_json, write_bytes
from scanloop.build import RUN, read_seconds, read_summary
from scanloop.errors import ScanloopError
from scanloop.freshness import all_fresh
from scanloop.liveness import own_children
from scanloop.provenance import digest

STEP_LINE = re.compile(r"\[KFP Executor [^]]*\]: (?P<step>[a-z_]+): (?P<text>.*)")
PROGRESS_LINE = re.compile(r"^\s*(?P<text>[a-z_: ]+:\s+\d+%\|.*)$")


class StepError(ScanloopError):
    """A step of a local run failed; carries the step's own message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_locally(request: Request, output: Path) -> list[str]:
    """Run a pipeline so that one folder per artifact stands in `output`.

    Steps whose artifact is there already, made by the same code from the same inputs, are found and not run again;
    where that holds for all of them, not even their processes are started. The whole log goes to `output/run.log`,
    one line a step to the terminal.

    Args:
        request: Pipeline and arguments; its `run_folder` is `output`.
        output: Folder of the run.

    Returns:
        Names of the artifacts that the pipeline made or found.

    Raises:
        StepError: A step failed, and the message is its own; or another run is at work in `output`.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        if nothing_changed(request, output):
            print("every step was found in the cache: nothing changed since this run was made")
        else:
            own_children()
            _run_steps(request, output)
            done = {"request": _digest(request), "artifacts": artifacts_of(request)}
            write_bytes(_marker(request, output), json.dumps(done).encode())
    return artifacts_of(request)


def nothing_changed(request: Request, output: Path) -> bool:
    """Whether this very request was carried out in `output`, and every artifact there would come out the same again."""
    try:
        done = json.loads(_marker(request, output).read_text())
    except (OSError, ValueError):
        return False
    return bool(done["request"] == _digest(request) and all_fresh(output, done["artifacts"]))


def artifacts_of(request: Request) -> list[str]:
    """Names of the artifacts that a pipeline makes: those that its report tells of, and the report."""
    tasks = PIPELINES[request.pipeline].pipeline_spec.root.dag.tasks
    told = set(tasks["report"].inputs.artifacts)
    return sorted((told - set(IMPORTED.get(request.pipeline, ()))) | {"report"})


def _run_steps(request: Request, output: Path) -> None:
    for stale in output.glob(".*.error.json"):
        stale.unlink()
    with _scratch() as root, (output / "run.log").open("w") as log:
        runner = local.SubprocessRunner(use_venv=False)
        local.init(runner=runner, pipeline_root=root, enable_caching=False)  # scanloop's own cache knows the code
        try:
            with contextlib.redirect_stdout(_Console(sys.stdout, log)):
                PIPELINES[request.pipeline](**request.arguments)
        except RuntimeError as error:
            raise _reason(output, error) from error


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Folder for what KFP's runner and its tasks leave in the temporary folder and never remove."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="scanloop-kfp-", ignore_cleanup_errors=True) as root:
        os.environ["TMPDIR"] = tempfile.tempdir = root
        try:
            yield root
        finally:
            tempfile.tempdir = before[1]
            os.environ.pop("TMPDIR")
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other runs out of a folder: two would share its log, and each would undo what the other's request made."""
    lock = FileLock(output / ".run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        message = f"another run is at work in {output}; wait until it ends, or give another --output"
        raise StepError(message, ScanloopError.exit_code) from error
    try:
        yield
    finally:
        lock.release()


def _marker(request: Request, output: Path) -> Path:
    return output / f".{request.pipeline}.done.json"


def _digest(request: Request) -> str:
    graph = json_format.MessageToDict(PIPELINES[request.pipeline].pipeline_spec)
    return digest([graph, request.arguments])


def _reason(output: Path, error: RuntimeError) -> StepError:
    """What the failed step left behind, rather than KFP's word that some task failed."""
    notes = sorted(output.glob(".*.error.json"), key=lambda path: path.stat().st_mtime)
    if not notes:
        return StepError(f"{error}; the log is {output / 'run.log'}", ScanloopError.exit_code)
    note = json.loads(notes[-1].read_text())
    artifact = notes[-1].name.removeprefix(".").removesuffix(".error.json")
    return StepError(
        f"{note['error']} ({artifact}): {note['message']}\nthe log is {output / 'run.log'}", note["exit_code"]
    )


def steps_of(output: Path, artifacts: list[str], since: float) -> Iterator[tuple[str, float, bool, dict[str, object]]]:
    """Artifacts of a run in the order in which they were made: name, node seconds, whether found, and summary.

    Args:
        output: Folder of the run.
        artifacts: Names of its artifacts.
        since: Time at which the run started; artifacts finished before it were found in the cache.
    """
    finished = {name: float(read_json(output / name / RUN)["finished"]) for name in artifacts}
    for name in sorted(artifacts, key=lambda name: finished[name]):
        yield name, read_seconds(output / name), finished[name] < since, read_summary(output / name)


class _Console(io.TextIOBase):
    """Writes everything to the log, and to the terminal what a person wants to see of it."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self._terminal, self._log, self._line = terminal, log, ""
        self._started = time.monotonic()

    def write(self, text: str) -> int:
        self._log.write(text)
        self._line += text
        while "\n" in self._line:
            line, self._line = self._line.split("\n", 1)
            self._show(line)
        return len(text)

    def flush(self) -> None:
        self._log.flush()
        self._terminal.flush()

    def _show(self, line: str) -> None:
        elapsed = f"{time.monotonic() - self._started:6.1f} s"
        if found := STEP_LINE.search(line):
            self._log.flush()
            self._terminal.write(f"{elapsed}  {found['step']:<13} {found['text']}\n")
            self._terminal.flush()
        elif self._terminal.isatty() and (progress := PROGRESS_LINE.match(line)):
            self._terminal.write(f"{elapsed}  {progress['text'][:100]}\r")
            self._terminal.flush()
