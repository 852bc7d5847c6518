"""Bring the records of artifacts to what their files are now; what stood on a patient is made again by the next run."""

from pathlib import Path
from typing import Any

from scanloop.artifacts import is_exempt, read_json, write_json
from scanloop.build import RECORD, RUN, SCRATCH, made_under
from scanloop.provenance import digest, file_digest

FACTS = ("kind", "step", "config", "inputs", "sources", "code", "packages")
BOUGHT = ("queue", "labels")
"""Kinds that stay as they are, without the patient's rows: what they hold was paid for."""


def artifacts_in(run: Path) -> list[Path]:
    """Artifact directories of a run, without those in the making."""
    return sorted(path.parent for path in run.glob(f"*/{RECORD}") if not path.parent.name.startswith("."))


def describe_again(artifact: Path) -> bool:
    """Write the digests and sizes of an artifact's files, as they are now, into its record; whether any had changed."""
    record = read_json(artifact / RECORD)
    files = (path for path in artifact.rglob("*") if path.is_file() and SCRATCH not in path.relative_to(artifact).parts)
    entries = {
        str(path.relative_to(artifact)): {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(files)
        if path.name not in (RECORD, RUN) and not is_exempt(path)
    }
    if entries == record.get("files"):
        return False
    write_json(artifact / RECORD, record | {"files": entries})
    return True


def hand_on_another_key(catalog: Path, old_key: str, patient_hash: str, facts: dict[str, Any]) -> None:
    """Give the catalog the key of a catalog without the patient, under which nothing was made yet.

    It is still found by what it was made under, so that its source is not read again, which may still hold the patient.
    """
    record = read_json(catalog / RECORD)
    changed = {
        "quarantined": sum(facts["quarantined"].values()),
        "validation": facts["splits"]["validation"],
        "test": facts["splits"]["test"],
    }
    summary = {name: changed.get(name, facts.get(name, value)) for name, value in record["summary"].items()}
    key = digest([old_key, "without", patient_hash])
    write_json(catalog / RECORD, record | {"made_under": made_under(record), "key": key, "summary": summary})


def keep_what_was_bought(run: Path) -> None:
    """Give queue and labels the keys under which the next run asks for them; everything else is made again."""
    for artifact in artifacts_in(run):
        record = read_json(artifact / RECORD)
        if record.get("kind") in BOUGHT and (key := _asked(artifact)) != record["key"]:
            inputs = {name: _asked(path) for name, path in inputs_of(artifact).items()}
            write_json(artifact / RECORD, record | {"inputs": inputs, "key": key})


def made_again(run: Path) -> list[str]:
    """Artifacts that the next run makes again: all but the catalog and what was bought."""
    kept = {"catalog", *BOUGHT}
    return [path.name for path in artifacts_in(run) if read_json(path / RECORD).get("kind") not in kept]


def _asked(artifact: Path) -> str:
    """Key under which the next run asks for an artifact: that of its record, with the keys its inputs will have."""
    record, inputs = read_json(artifact / RECORD), inputs_of(artifact)
    if not inputs or not all((path / RECORD).exists() for path in inputs.values()):
        return str(record["key"])
    facts = {name: record[name] for name in FACTS}
    return digest(facts | {"inputs": {name: _asked(path) for name, path in inputs.items()}})


def inputs_of(artifact: Path) -> dict[str, Path]:
    """Artifacts that an artifact was made from, by name."""
    try:
        inputs = read_json(artifact / RUN).get("inputs", {})
    except Exception:  # an artifact that no step made has no record of its run
        return {}
    return {name: artifact.parent / place for name, place in inputs.items()}
