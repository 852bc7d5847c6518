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

from google.protobuf import json_format
from kfp import local

from pipelines.registry import PIPELINES, Request
from scanloop.artifacts import read_json, write_bytes
from scanloop.build import OWNER_VARIABLE
from scanloop.errors import ScanloopError
from scanloop.freshness import all_fresh
from scanloop.provenance import digest

STEP_LINE = re.compile(r"\[KFP Executor [^]]*\]: (?P<step>[a-z_]+): (?P<text>.*)")
PROGRESS_LINE = re.compile(r"^\s*(?P<text>[a-z_: ]+:\s+\d+%\|.*)$")


class StepError(ScanloopError):
    """A step of a local run failed; carries the step's own message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_locally(request: Request, output: Path) -> None:
    """Run a pipeline so that one folder per artifact stands in `output`.

    Steps whose artifact is there already, made by the same code from the same inputs, are found and not run again;
    where that holds for all of them, not even their processes are started. The
    whole log goes to `output/run.log`, one line a step to the terminal.

    Args:
        request: Pipeline and arguments; its `run_folder` is `output`.
        output: Folder of the run.

    Raises:
        StepError: A step failed; the message is its own.
    """
    output.mkdir(parents=True, exist_ok=True)
    if nothing_changed(request, output):
        print("every step was found in the cache: nothing changed since this run was made")
        return
    os.environ[OWNER_VARIABLE] = str(os.getpid())  # the steps inherit it, and end when this process is killed
    for stale in output.glob(".*.error.json"):
        stale.unlink()
    with tempfile.TemporaryDirectory(prefix="scanloop-kfp-") as root, (output / "run.log").open("w") as log:
        runner = local.SubprocessRunner(use_venv=False)
        local.init(runner=runner, pipeline_root=root, enable_caching=False)  # scanloop's own cache knows the code
        try:
            with contextlib.redirect_stdout(_Console(sys.stdout, log)):
                PIPELINES[request.pipeline](**request.arguments)
        except RuntimeError as error:
            raise _reason(output, error) from error
    _note_done(request, output)


def nothing_changed(request: Request, output: Path) -> bool:
    """Whether this very request was carried out in `output`, and every artifact there would come out the same again."""
    try:
        done = json.loads(_marker(request, output).read_text())
    except (OSError, ValueError):
        return False
    return bool(done["request"] == _digest(request) and all_fresh(output, done["artifacts"]))


def _note_done(request: Request, output: Path) -> None:
    """Write down that a request was carried out, and which artifacts stand there since."""
    artifacts = sorted(path.parent.name for path in output.glob("*/artifact.json"))
    done = {"request": _digest(request), "artifacts": artifacts}
    write_bytes(_marker(request, output), json.dumps(done).encode())


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


def steps_of(output: Path, since: float) -> Iterator[tuple[str, float, bool, dict[str, object]]]:
    """Artifacts of a run in the order in which they were made: name, node seconds, whether found, and summary.

    Args:
        output: Folder of the run.
        since: Time at which the run started; artifacts finished before it were found in the cache.
    """
    made = [path.parent for path in output.glob("*/artifact.json")]
    facts = {path: read_json(path / "run.json") for path in made}
    for path in sorted(made, key=lambda path: float(facts[path]["finished"])):
        summary = read_json(path / "artifact.json")["summary"]
        yield path.name, float(facts[path]["seconds"]), facts[path]["finished"] < since, summary


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
