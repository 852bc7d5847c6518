"""Whether a folder of artifacts would come out the same again, asked of their records, without running a step."""

from pathlib import Path
from typing import Any

from scanloop.artifacts import read_json
from scanloop.build import RECORD, found
from scanloop.errors import ArtifactError
from scanloop.provenance import code_digest, digest, packages, source_digest


def all_fresh(folder: Path, names: list[str]) -> bool:
    """Whether each of these artifacts is whole, and was made from what its inputs, sources, code and packages are now.

    Args:
        folder: Where the artifacts stand; their inputs stand there, too, under their names.
        names: Names of the artifacts; an empty list is not fresh.
    """
    try:
        records = {name: read_json(folder / name / RECORD) for name in names}
        return bool(records) and all(_fresh(folder, name, record) for name, record in records.items())
    except (ArtifactError, OSError):
        return False


def _fresh(folder: Path, name: str, record: dict[str, Any]) -> bool:
    now = {
        "kind": record["kind"],
        "step": record["step"],
        "config": record["config"],
        "inputs": {given: read_json(folder / given / RECORD)["key"] for given in record["inputs"]},
        "sources": {path: source_digest(Path(path)) for path in record["sources"]},
        "code": code_digest(f"scanloop.steps.{record['step']}"),
        "packages": packages(),
    }
    return digest(now) == record["key"] and found(folder / name, record["key"]) is not None
