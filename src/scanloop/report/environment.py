"""What the artifacts of a run were made with: packages, machine, seeds, and digests of their configurations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanloop.artifacts import read_json
from scanloop.build import RECORD, RUN
from scanloop.provenance import digest, machine, packages


def environment(artifacts: Mapping[str, Path]) -> dict[str, Any]:
    """Content of `environment.json`: of the report's own process, and of each artifact that it tells of.

    It holds machines' facts, so that it differs between machines; the artifacts themselves do not.

    Args:
        artifacts: Directory of each artifact, by name; one without a record is left out.
    """
    made = {}
    for name, path in sorted(artifacts.items()):
        if not (path / RECORD).exists():
            continue
        record = read_json(path / RECORD)
        run = read_json(path / RUN) if (path / RUN).exists() else {}
        config = record.get("config") or {}
        made[name] = {
            "step": record.get("step"),
            "key": record.get("key"),
            "code": record.get("code"),
            "config_sha256": digest(config),
            "seed": config.get("seed"),
            "packages_sha256": digest(record.get("packages") or {}),
            "machine": run.get("machine"),
            "seconds": run.get("seconds"),
        }
    return {"packages": packages(), "machine": machine(), "artifacts": made}
