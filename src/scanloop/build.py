"""How a step makes its artifact: found when it is there, locked while it is made, whole or absent whenever it dies."""

import errno
import functools
import inspect
import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from scanloop.artifacts import KINDS, check_artifact, is_exempt, read_json, write_bytes, write_json
from scanloop.errors import ArtifactError, ScanloopError
from scanloop.liveness import beating, end_without_owner, owned, seconds_worked
from scanloop.provenance import Source, code_digest, digest, file_digest, machine, packages, source_digest
from scanloop.replacing import locked, swap
from scanloop.sources import Section
from scanloop.storage.address import is_remote, local_path

logger = logging.getLogger("scanloop")

P = ParamSpec("P")
S = TypeVar("S")

RECORD, RUN, SCRATCH = "artifact.json", "run.json", ".scratch"
UNFINISHED_ERASURE, UNFINISHED_UNPROMOTION = ".forget.json", ".unpromote.json"
"""Files in a run's folder while a patient is being erased from it, and while a wave of labels is being taken back."""


def step(
    kind: str, sources: Callable[[Any], list[Source]] = lambda _: []
) -> Callable[[Callable[P, S]], Callable[P, S]]:
    """Turn a function into a step: it fills `output` with one artifact, and runs only when something changed.

    The function takes `config` (its section), artifact directories as keyword `Path`s named after their kind, and
    `output`; it returns a frozen dataclass of plain values. The decorated function

    - computes a key from the config, the keys of its inputs, the bytes of its sources, its code and its packages, and
      returns the stored summary when `output` was made under that key;
    - holds a lock beside `output`, so that a process left over from a killed run and its successor never write both;
    - lets the function write into a hidden directory, which becomes `output` by one rename when it is complete. A
      directory left by a killed attempt with the same key is handed on, so that a step can continue from it;
    - ends with the run that started it, when that run is killed.

    Args:
        kind: Key of `scanloop.artifacts.KINDS`.
        sources: What the step reads outside of any artifact, from its config; local paths that are missing count not.
    """

    def decorate(function: Callable[P, S]) -> Callable[P, S]:
        signature = inspect.signature(function)
        summary_type = get_type_hints(function)["return"]

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> S:
            arguments = signature.bind(*args, **kwargs).arguments
            output, config = Path(arguments["output"]).absolute(), arguments["config"]
            inputs = {
                name: Path(value) for name, value in arguments.items() if isinstance(value, Path) and name != "output"
            }
            name = function.__name__
            with owned(), errors_recorded(output), locked(output):
                _refuse_half_changed(output.parent)
                _refuse_foreign(output, kind)
                outside = [one for source in sources(config) if (one := _found_source(source)) is not None]
                record = _record(kind, name, function.__module__, config, inputs, outside)
                partial = output.with_name(f".{output.name}.partial")
                if found(partial, record["key"]) is not None:  # an attempt was killed between its last write and this
                    _publish(partial, output)
                if (summary_found := found(output, record["key"])) is not None:
                    logger.info("%s: found in cache", name)
                    stored: S = summary_type(**summary_found)
                    return stored
                _prepare(partial, record["key"])
                with beating(partial / SCRATCH):
                    arguments["output"] = partial
                    summary = function(**arguments)  # type: ignore[call-arg]
                made_from = {"inputs": _beside(inputs, output), "sources": outside}
                _complete(partial, record | {"summary": asdict(summary)}, made_from)  # type: ignore[call-overload]
                _publish(partial, output)
                logger.info("%s: %s", name, _line(asdict(summary)))  # type: ignore[call-overload]
                return summary

        return run

    return decorate


def scratch(output: Path) -> Path:
    """Directory for checkpoints in an artifact in the making: kept when the step is killed, gone when it is done."""
    folder = output / SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_key(artifact: Path) -> str:
    """Key under which an artifact was made."""
    return str(read_json(artifact / RECORD)["key"])


def made_under(record: Mapping[str, Any]) -> str:
    """Key that an artifact answers to: what it was asked for by, though a patient left it since and its key with them.

    An artifact from which a patient was erased is found as before, and hands on another key: what was made from it
    is made again.
    """
    return str(record.get("made_under", record["key"]))


def _refuse_half_changed(folder: Path) -> None:
    if (folder / UNFINISHED_ERASURE).exists():
        raise ArtifactError(f"{folder}: the erasure of a patient was interrupted here; run scanloop forget again first")
    if (folder / UNFINISHED_UNPROMOTION).exists():
        wave = read_json(folder / UNFINISHED_UNPROMOTION)["wave"]
        raise ArtifactError(
            f"{folder}: taking wave {wave} back was interrupted here; run scanloop unpromote --wave {wave} again first"
        )


def _refuse_foreign(output: Path, kind: str) -> None:
    """Return if nothing is at `output`, or what a step of this kind left there, whole or damaged: it is replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    held = "files that no step wrote"
    if (output / RECORD).is_file():
        try:
            held = str(read_json(output / RECORD).get("kind", kind))
        except ArtifactError:  # damaged
            held = kind
    elif any((output / name).exists() for name in KINDS[kind]):
        held = kind
    if held != kind:
        raise ArtifactError(f"{output} holds {held}, which the step's {kind} would replace; name another folder")


def read_summary(artifact: Path) -> dict[str, Any]:
    """Summary that the step left with its artifact."""
    summary: dict[str, Any] = read_json(artifact / RECORD)["summary"]
    return summary


def read_seconds(artifact: Path) -> float:
    """Seconds that a node spent on an artifact, those of killed attempts included."""
    return float(read_json(artifact / RUN)["seconds"])


def read_finished(artifact: Path) -> float:
    """When an artifact was complete, in seconds since 1970 (UTC): a clock's fact, kept outside of its key."""
    return float(read_json(artifact / RUN)["finished"])


def _record(
    kind: str, name: str, module: str, config: Section, inputs: Mapping[str, Path], sources: list[Source]
) -> dict[str, Any]:
    """What determines the artifact; the digest of it all is the key.

    A source counts with its name and its bytes, not with the folder that it lies in: wherever the same archive and
    weights lie, the same artifact comes out.
    """
    local = (local_path(one.location) for one in sources if not is_remote(one.location))
    names = {path: path.name for path in local}
    facts = {
        "kind": kind,
        "step": name,
        "config": _without_folders(config.model_dump(mode="json", exclude=set(config.arrangement)), names),
        "inputs": {input_name: read_key(path) for input_name, path in inputs.items()},
        "sources": [source_digest(source) for source in sources],
        "code": code_digest(module),
        "packages": packages(),
    }
    return facts | {"key": digest(facts)}


def _found_source(source: Source) -> Source | None:
    """The source with an absolute path, so that it is found from everywhere; None where a local one is missing."""
    if is_remote(source.location):
        return source
    path = local_path(source.location).absolute()
    return Source(str(path)) if path.exists() else None


def _without_folders(value: Any, names: Mapping[Path, str]) -> Any:
    """Configuration in which a path of a source is its name."""
    if isinstance(value, dict):
        return {key: _without_folders(inner, names) for key, inner in value.items()}
    return names.get(Path(value).absolute(), value) if isinstance(value, str) else value


def _beside(inputs: Mapping[str, Path], output: Path) -> dict[str, str]:
    """Where the inputs lie, seen from the folder that the output lies in, so that both can move together."""
    return {name: os.path.relpath(path, output.parent) for name, path in inputs.items()}


def found(output: Path, key: str) -> dict[str, Any] | None:
    """Summary of the artifact at `output` if it was made under this key and every file is there in its size."""
    try:
        record = read_json(output / RECORD)
        if made_under(record) != key:
            return None
        check_artifact(output, record["kind"])
    except ArtifactError:
        return None
    for name, file in record["files"].items():
        path = output / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return None
    summary: dict[str, Any] = record["summary"]
    return summary


def _prepare(partial: Path, key: str) -> None:
    """Make the hidden directory ready to fill: what an earlier attempt under the same key left, or a new one."""
    marker = partial / SCRATCH / "key"
    if not marker.is_file() or marker.read_text() != key:
        shutil.rmtree(partial, ignore_errors=True)
        write_bytes(marker, key.encode())
    for leftover in partial.rglob("*.tmp"):
        leftover.unlink()


def _complete(partial: Path, record: dict[str, Any], made_from: dict[str, Any]) -> None:
    """Write the facts about a filled directory into it; the record comes last, and says that all before it is there."""
    seconds = seconds_worked(partial / SCRATCH)
    check_artifact(partial, record["kind"])
    kept = (path for path in partial.rglob("*") if path.is_file() and SCRATCH not in path.relative_to(partial).parts)
    files = sorted(path for path in kept if path.name not in (RECORD, RUN))
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    entries = {
        str(path.relative_to(partial)): {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in files
        if not is_exempt(path)
    }
    run = {"machine": machine(), "seconds": seconds, "finished": time.time()}
    write_json(partial / RUN, run | made_from)
    write_json(partial / RECORD, record | {"files": entries})


def _publish(partial: Path, output: Path) -> None:
    """Make the completed directory the artifact, by renaming it; an older artifact of the name goes first.

    The checkpoints go only now: a step killed before its record is written continues from them.
    """
    end_without_owner()
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    swap(partial, output)


@contextmanager
def errors_recorded(output: Path) -> Iterator[None]:
    """Leave the reason of a failure beside the artifact, for the process that started the step in another process."""
    path = error_path(output)
    path.unlink(missing_ok=True)
    try:
        with _space_named(output):
            yield
    except Exception as error:
        known = isinstance(error, ScanloopError)
        code = error.exit_code if isinstance(error, ScanloopError) else ScanloopError.exit_code
        message = str(error) if known else f"{type(error).__name__}: {error}"
        output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"error": type(error).__name__, "message": message, "exit_code": code}).encode())
        raise


@contextmanager
def _space_named(output: Path) -> Iterator[None]:
    """Say in one line that a disk is full: of a file system, or of the database of an ingest's journal."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        of_database = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        if not of_database and getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ArtifactError(f"{output}: no space is left; free some and run again: it continues") from error


def error_path(output: Path) -> Path:
    """File beside an artifact that says why its step failed last."""
    return output.with_name(f".{output.name}.error.json")


def _line(summary: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in summary.items()
    )
