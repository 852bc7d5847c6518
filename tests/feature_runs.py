"""Runs to write into a feature repository: artifacts with the few tables that it reads, and labels of many times."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.artifacts import write_json, write_table

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CLASSES = ["lesion", "normal"]


def ids(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def iso(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def put(run: Path, name: str, table: str, frame: pd.DataFrame, at: datetime, key: str = "k") -> Path:
    """An artifact under a key, complete at a time."""
    write_table(run / name, table, frame)
    write_json(run / name / "artifact.json", {"key": f"{name}-{key}", "kind": name})
    write_json(run / name / "run.json", {"finished": at.timestamp(), "seconds": 1.0})
    return run / name


def write_run(run: Path, slices: list[str], given: dict[str, str] | None = None, at: datetime = START) -> Path:
    """Catalog, embeddings and triage, an hour after each other."""
    manifest = pd.DataFrame({"slice_id": slices, "split": "train", "label": [(given or {}).get(one) for one in slices]})
    put(run, "catalog", "manifest", manifest, at)
    index = pd.DataFrame({"slice_id": slices, "shard": "shard-000000.tar", "row": range(len(slices))})
    put(run, "embeddings", "index.parquet", index, at + timedelta(hours=1))
    write_clusters(run, slices, [row % 3 for row in range(len(slices))], at + timedelta(hours=2))
    return run


def write_clusters(run: Path, slices: list[str], clusters: list[int], at: datetime, key: str = "k") -> None:
    frame = pd.DataFrame({"slice_id": slices, "cluster": clusters})
    put(run, "triage", "clusters.parquet", frame, at, key)


def write_wave(run: Path, slices: list[str], wave: int, labels_as_of: datetime | None, at: datetime) -> None:
    """Pseudo-labels, two uris a slice, and one row of a labelled slice, which has no wave."""
    frame = pd.DataFrame({"slice_id": np.repeat(slices, 2), "label": "lesion", "confidence": 0.5 + wave / 10})
    frame = frame.assign(promoted=True, wave=wave, uri="a.png")
    labelled = pd.DataFrame({"slice_id": ["f" * 64], "label": ["normal"], "confidence": [0.9], "promoted": [False]})
    put(run, "pseudo_labels", "pseudo_labels.parquet", pd.concat([frame, labelled]), at, str(wave))
    known = None if labels_as_of is None else iso(labels_as_of)
    write_json(run / "pseudo_labels" / "certificate.json", {"wave": wave, "labels_as_of": known})


def write_labels(run: Path, rows: pd.DataFrame, source: str = "readers") -> None:
    """Labels that readers gave; `rows` say slice_id, label and as_of."""
    table = rows.assign(readers=1, agreement=1.0, adjudicated=False, purpose="train")
    put(run, "labels", "labels.parquet", table, START)
    write_json(run / "labels" / "labels.json", {"source": source})


def drawn_history(seed: int, slices: int = 10, readings: int = 16, minutes: int = 40) -> pd.DataFrame:
    """Readings of some of the slices at whole minutes, one a slice and minute; some of them say no label."""
    draw = np.random.default_rng(seed)
    found = pd.DataFrame({
        "slice_id": draw.choice(ids(slices), readings),
        "minute": draw.integers(0, minutes, readings),
        "label": draw.choice([*CLASSES, None], readings),
    }).drop_duplicates(["slice_id", "minute"])  # fmt: skip
    return found.assign(as_of=[iso(START + timedelta(minutes=int(one))) for one in found["minute"]])


def export_at(history: pd.DataFrame, minute: int) -> pd.DataFrame:
    """What an export of a label store holds at a minute: of each slice the last reading."""
    past = history[history["minute"] <= minute].sort_values("minute")
    return past.drop_duplicates("slice_id", keep="last")[["slice_id", "label", "as_of"]]
