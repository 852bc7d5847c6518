"""Take a wave of promoted labels back: they count no more, and what learnt from them is made again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import RECORD, UNFINISHED_UNPROMOTION, made_under
from scanloop.erasure.records import describe_again
from scanloop.errors import ArtifactError
from scanloop.provenance import digest
from scanloop.replacing import edited


def take_back(run: Path, wave: int, reason: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Make a run's promoted labels of a wave pool images again, and say which models have learnt from them.

    The artifact is found as before and hands on another key, so that the next run makes bundle, evaluation and decision
    again; a wave that is taken back stays so. A process that is killed leaves the run refused until this is called
    again.

    Args:
        run: Folder of a run.
        wave: Number of the wave.
        reason: Why, for the record.
        dry_run: Say what would be done, and write nothing.

    Raises:
        ArtifactError: The folder holds no pseudo-labels, or those of another wave.
    """
    artifact, marker = run / "pseudo_labels", run / UNFINISHED_UNPROMOTION
    if not artifact.is_dir() and not marker.exists():
        raise ArtifactError(f"{artifact} does not exist; give the folder of a run that has pseudo-labels")
    if not dry_run:
        write_json(marker, {"wave": wave})
    try:
        with edited(artifact) as copy:
            facts = _facts_of(copy, artifact, wave)
            table = read_table(copy, "pseudo_labels.parquet")
            promoted = table["promoted"].fillna(False).astype(bool)
            ids = set(table.loc[promoted, "slice_id"])
            found = {"wave": wave, "taken_back": len(ids), "models": _learnt_from(run, ids)}
            if not dry_run and ids:
                _rewrite(copy, table, promoted, facts, reason)
    except ArtifactError:
        marker.unlink(missing_ok=True)
        raise
    marker.unlink(missing_ok=True)
    return found


def _facts_of(copy: Path, artifact: Path, wave: int) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(copy / "certificate.json")
    if facts["wave"] != wave:
        raise ArtifactError(f"{artifact} holds wave {facts['wave']}, not wave {wave}")
    return facts


def _rewrite(copy: Path, table: Any, promoted: Any, facts: dict[str, Any], reason: str) -> None:
    learnt = promoted & table["weight"].notna()
    table.loc[promoted, "promoted"] = False
    table.loc[promoted, "reason"] = f"wave {facts['wave']} was taken back"
    table.loc[learnt, "weight"] = 0.0
    table["soft"] = [
        [1 / len(soft)] * len(soft) if changed else soft for soft, changed in zip(table["soft"], learnt, strict=True)
    ]
    write_table(copy, "pseudo_labels.parquet", table)
    taken = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason, "promoted": facts["promoted"]}
    soft = int((table.drop_duplicates("slice_id")["weight"] > 0).sum())
    changed = {"promoted": 0, "soft_labelled": soft, "taken_back": taken}
    write_json(copy / "certificate.json", facts | changed | {"recipe": facts["recipe"] | {"thresholds": None}})
    describe_again(copy)
    record = read_json(copy / RECORD)
    summary = record["summary"] | {"promoted": 0, "soft_labelled": soft}
    key = digest([record["key"], "without wave", facts["wave"]])
    write_json(copy / RECORD, record | {"made_under": made_under(record), "key": key, "summary": summary})


def _learnt_from(run: Path, slice_ids: set[str]) -> list[str]:
    """Bundles of the run that learnt from any of these slices."""
    return [
        str(path.parent.relative_to(run))
        for path in sorted(run.glob("*/learnt.parquet"))
        if not path.parent.name.startswith(".")
        and slice_ids & set(read_table(path.parent, "learnt.parquet")["slice_id"])
    ]
