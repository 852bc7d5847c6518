"""Whether a folder of artifacts would come out the same again, asked of their records, without running a step."""

from pathlib import Path

from scanloop.artifacts import read_json
from scanloop.build import RECORD, RUN, found, read_key
from scanloop.errors import ArtifactError
from scanloop.provenance import code_digest, digest, packages, source_digest


def all_fresh(folder: Path, names: list[str]) -> bool:
    """Whether each of these artifacts is whole, and was made from what its inputs, sources, code and packages are now.

    Args:
        folder: Where the artifacts stand.
        names: Names of the artifacts; an empty list is not fresh.
    """
    try:
        return bool(names) and all(_fresh(folder / name) for name in names)
    except (ArtifactError, OSError):
        return False


def _fresh(artifact: Path) -> bool:
    record, run = read_json(artifact / RECORD), read_json(artifact / RUN)
    if "addresses" in record:  # what lies in a store is listed by the step itself
        return False
    now = {
        "kind": record["kind"],
        "step": record["step"],
        "config": record["config"],
        "inputs": {name: read_key(artifact.parent / path) for name, path in run["inputs"].items()},
        "sources": [source_digest(Path(path)) for path in run["sources"]],
        "code": code_digest(f"scanloop.steps.{record['step']}"),
        "packages": packages(),
    }
    return digest(now) == record["key"] and found(artifact, record["key"]) is not None
