"""What the feature repository costs: bytes and rows a second of both stores, look-ups, the join as of a time."""

import argparse
import functools
import json
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.artifacts import write_json, write_table
from scanloop.features.materialize import materialize
from scanloop.features.offline import read_labels, write
from scanloop.features.online import OnlineMetadata
from scanloop.features.repository import apply, open_repository
from scanloop.features.training_set import training_set
from scanloop.point_in_time import known_at

START = datetime(2026, 3, 1, tzinfo=UTC)


def main() -> None:
    """Print what was measured as JSON, the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--exports", type=int, default=10)
    parser.add_argument("--lookups", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), given.slices, given.labels, given.exports, given.lookups)))


def measure(folder: Path, slices: int, labels: int, exports: int, lookups: int) -> dict[str, Any]:
    """Seconds, bytes and rows of each part, on slices with a vector, a cluster and a pseudo-label each."""
    repository, run, draw = folder / "features", folder / "run", np.random.default_rng(0)
    ids = [draw.bytes(32).hex() for _ in range(slices)]
    opened, _ = timed(lambda: apply(repository))
    _write_run(run, ids)
    wrote, rows = timed(lambda: write(repository, run))
    history = _history(draw, ids, labels)
    for day in range(1, exports + 1):
        _write_labels(run, history[history["day"] <= day * 100 // exports])
        write(repository, run)
    before = _peak_mib()
    online, brought = timed(lambda: materialize(repository))
    again, _ = timed(lambda: materialize(repository))
    metadata = OnlineMetadata(repository)
    asked = [[ids[row] for row in draw.integers(0, slices, 10)] for _ in range(lookups)]
    latencies = [timed(functools.partial(metadata.of, one))[0] for one in asked]
    moment = START + timedelta(days=50)
    joined_in, joined = timed(lambda: training_set(repository, moment, views=("label",)))
    all_views_in, _ = timed(lambda: training_set(repository, moment))
    plain_in, plain = timed(lambda: known_at(read_labels(repository), moment.isoformat()))
    answered = joined[joined["state"] == "answered"].set_index("slice_id")["label"].to_dict()
    assert open_repository(repository).list_feature_views()
    total, total_online, files = sum(rows.values()), sum(brought.values()), _bytes(repository / "offline")
    return {
        "slices": slices,
        "labels": len(history),
        "seconds_import_and_apply": opened,
        "offline": {"rows": total, "rows_a_second": total / wrote, "bytes_a_row": files / total},
        "online": {
            "rows": total_online,
            "rows_a_second": total_online / online,
            "bytes_a_row": _bytes(repository, "online.db*") / total_online,
            "bytes_a_slice": _bytes(repository, "online.db*") / slices,
            "peak_mib_before": before,
            "peak_mib": _peak_mib(),
            "seconds_with_nothing_new": again,
        },
        "lookup_of_10": {
            "n": lookups, "p50_ms": 1000 * float(np.quantile(latencies, 0.5)),
            "p99_ms": 1000 * float(np.quantile(latencies, 0.99)),
        },
        "as_of": {
            "seconds_labels": joined_in, "seconds_all_views": all_views_in, "seconds_plain": plain_in,
            "slices": len(answered), "same_labels": answered == plain.set_index("slice_id")["label"].to_dict(),
        },
    }  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that some work took, and what came of it."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def _write_run(run: Path, ids: list[str]) -> None:
    count = np.arange(len(ids))
    shards = [f"shard-{one:06d}.tar" for one in count // 512]
    wave = pd.DataFrame({"slice_id": ids, "label": "lesion", "confidence": 0.9, "promoted": False, "wave": 1})
    tables = {
        "catalog": ("manifest", {"split": "train", "label": [None] * len(ids)}),
        "embeddings": (
            "index.parquet",
            {"shard": shards, "row": count % 512},
        ),
        "triage": ("clusters.parquet", {"cluster": count % 6}),
        "pseudo_labels": ("pseudo_labels.parquet", {name: wave[name] for name in wave.columns[1:]}),
    }
    for name, (table, columns) in tables.items():
        write_table(run / name, table, pd.DataFrame({"slice_id": ids} | columns))
        _record(run / name)
    write_json(run / "pseudo_labels" / "certificate.json", {"labels_as_of": None})


def _history(draw: np.random.Generator, ids: list[str], labels: int) -> pd.DataFrame:
    """Readings on a hundred days; one of ten slices is read twice."""
    slices = draw.choice(ids, labels, replace=False)
    table = pd.DataFrame({"slice_id": slices, "day": draw.integers(1, 90, labels)})
    again = table[: labels // 10].assign(day=table["day"] + 10)
    table = pd.concat([table, again], ignore_index=True)
    table["label"] = draw.choice(["lesion", "normal"], len(table))
    return table.assign(as_of=[(START + timedelta(days=int(day))).isoformat() for day in table["day"]])


def _write_labels(run: Path, past: pd.DataFrame) -> None:
    last = past.sort_values("day").drop_duplicates("slice_id", keep="last").drop(columns="day")
    write_table(run / "labels", "labels.parquet", last.assign(readers=1, agreement=1.0, adjudicated=False))
    write_json(run / "labels" / "labels.json", {"source": "readers"})
    _record(run / "labels")


def _record(artifact: Path) -> None:
    write_json(artifact / "artifact.json", {"key": artifact.name})
    write_json(artifact / "run.json", {"finished": START.timestamp()})


def _bytes(folder: Path, pattern: str = "**/*") -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
