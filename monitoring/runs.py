"""From a run's folder to samples: each artifact is read once, until another takes its place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from monitoring import metrics
from monitoring.metrics import Metric
from scanloop.artifacts import KINDS, QUARANTINE_REASONS, check_artifact, read_json, read_table
from scanloop.build import RECORD, RUN


@dataclass(frozen=True)
class Sample:
    """One value of a metric.

    Attributes:
        metric: Its family.
        value: The value.
        labels: Values of the family's labels; the run is added when it is exposed.
        suffix: What a summary's count and sum add to the name.
    """

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True)
class Reading:
    """What a run's folder holds.

    Attributes:
        run: Name of the folder.
        samples: Everything that could be read.
        faults: What could not be read, and why, by artifact.
    """

    run: str
    samples: tuple[Sample, ...]
    faults: Mapping[str, str]


Stamp: TypeAlias = tuple[tuple[int, int] | None, ...]
Memory: TypeAlias = dict[tuple[Path, str], tuple[Stamp, tuple[Sample, ...]]]
"""Samples by run and artifact, under the stamps of the artifacts that they were read from."""


def find_runs(folder: Path) -> list[Path]:
    """Run folders: those directly in `folder` that hold artifacts, or `folder` itself where it is one.

    Hidden folders are no runs; one that cannot be listed is, so that its fault shows.
    """
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if any((child / RECORD).is_file() for child in children):
        return [folder]
    return [child for child in children if _may_be_run(child)]


def read_run(run: Path, now: float, memory: Memory) -> Reading:
    """Samples of a run; an artifact that cannot be read becomes a fault, whatever is wrong with it.

    Args:
        run: Folder with one folder an artifact.
        now: Seconds since the epoch.
        memory: What was read before; it is brought up to date.
    """
    samples: list[Sample] = []
    faults: dict[str, str] = {}
    try:
        artifacts = _artifacts(run)
    except OSError as error:
        return Reading(run.name, (), {"": str(error)})
    for artifact in artifacts:
        try:
            finished = _finished(artifact)
            samples.append(Sample(metrics.ARTIFACT_AGE, max(0.0, now - finished), {"artifact": artifact.name}))
            samples += _remembered(run, artifact.name, memory)
        except Exception as error:  # a scrape outlives every fault in a run: it is reported as a metric instead
            faults[artifact.name] = f"{type(error).__name__}: {error}"
    return Reading(run.name, tuple(samples), faults)


def _may_be_run(folder: Path) -> bool:
    try:
        return bool(_artifacts(folder))
    except OSError:
        return True


def _artifacts(run: Path) -> list[Path]:
    """Folders that hold an artifact, or by their name ought to."""
    folders = (path for path in run.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in folders if path.name in KINDS or (path / RECORD).is_file())


def _finished(artifact: Path) -> float:
    """When a whole artifact was finished, in seconds since the epoch."""
    check_artifact(artifact, read_json(artifact / RECORD)["kind"])
    return float(read_json(artifact / RUN)["finished"])


def _remembered(run: Path, name: str, memory: Memory) -> tuple[Sample, ...]:
    if name not in READERS:
        return ()
    stamp = tuple(_stamp(run / needed / RECORD) for needed in (name, *ALSO_READS.get(name, ())))
    known = memory.get((run, name))
    if known is not None and known[0] == stamp:
        return known[1]
    samples = tuple(READERS[name](run))
    memory[run, name] = stamp, samples
    return samples


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _catalog(run: Path) -> Iterator[Sample]:
    counts = read_table(run / "catalog", "quarantine.parquet")["reason"].value_counts()
    for reason in sorted({*QUARANTINE_REASONS, *counts.index}):
        yield Sample(metrics.QUARANTINED_IMAGES, float(counts.get(reason, 0)), {"reason": reason})


def _queue(run: Path) -> Iterator[Sample]:
    queue = read_table(run / "queue", "queue.parquet")
    if (run / "labels").is_dir():
        queue = queue[~queue["slice_id"].isin(read_table(run / "labels", "labels.parquet")["slice_id"])]
    yield Sample(metrics.QUEUE_LABELS, float(len(queue)))
    yield Sample(metrics.QUEUE_PRICE, round(float(queue["price"].sum()), 6))


def _pseudo_labels(run: Path) -> Iterator[Sample]:
    certificate = read_json(run / "pseudo_labels" / "certificate.json")  # it counts slices; the table's rows are uris
    yield Sample(metrics.PSEUDO_LABEL_POOL, float(certificate["pool"]))
    yield Sample(metrics.PSEUDO_LABEL_CANDIDATES, float(certificate["candidates"]))
    yield Sample(metrics.PSEUDO_LABEL_PROMOTED, float(certificate["promoted"]))


def _evaluation(run: Path) -> Iterator[Sample]:
    figures = read_json(run / "evaluation" / "metrics.json")
    yield from _present(metrics.HOLDOUT_F1, figures["arms"][figures["deployed_arm"]]["macro_f1"]["low"])


def _drift(run: Path) -> Iterator[Sample]:
    drift = read_json(run / "drift" / "drift.json")
    yield Sample(metrics.DRIFT_THRESHOLD, float(drift["threshold"]))
    yield from _present(metrics.DRIFT_SCORE, drift["score"])
    yield from _present(metrics.DRIFT_DETECTED, drift["drifted"])
    pool = drift["current"]
    if pool["n"]:
        for quantile, confidence in pool["quantiles"].items():
            yield Sample(metrics.POOL_CONFIDENCE, float(confidence), {"quantile": quantile})
        yield Sample(metrics.POOL_CONFIDENCE, float(pool["n"]), suffix="_count")
        yield Sample(metrics.POOL_CONFIDENCE, float(pool["mean"] * pool["n"]), suffix="_sum")


def _account(run: Path) -> Iterator[Sample]:
    ledger = read_json(run / "account" / "ledger.json")
    yield Sample(metrics.SPEND, float(ledger["total_eur"]))
    yield Sample(metrics.SPEND_CAP, float(ledger["cap_eur"]))


def _present(metric: Metric, value: Any) -> Iterator[Sample]:
    """A sample where the artifact has a value: "unknown" is not 0."""
    if value is not None:
        yield Sample(metric, float(value))


READERS: Mapping[str, Callable[[Path], Iterator[Sample]]] = {
    "catalog": _catalog,
    "queue": _queue,
    "pseudo_labels": _pseudo_labels,
    "evaluation": _evaluation,
    "drift": _drift,
    "account": _account,
}
"""What is read from each artifact, by its name in a run's folder."""

ALSO_READS: Mapping[str, tuple[str, ...]] = {"queue": ("labels",)}
"""Other artifacts that a reader looks into."""
