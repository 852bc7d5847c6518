"""What the artifacts of a run say of its slices, with the time from which each of it was known."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from scanloop.artifacts import iterate_table, read_json, read_table
from scanloop.build import read_finished, read_key
from scanloop.features.views import ENTITY, TIME
from scanloop.point_in_time import moments


@dataclass(frozen=True)
class Fact:
    """One artifact as rows of one view, all known from the same time on.

    Attributes:
        view: Key of `VIEWS`.
        key: Of the artifact.
        at: Time, UTC.
        frames: The rows without their time, some thousand at once.
    """

    view: str
    key: str
    at: datetime
    frames: Iterator[pd.DataFrame]


def facts_of(run: Path) -> Iterator[Fact]:
    """What the artifacts that stand in a run's folder say, but for bought labels; what is not there yet is left out.

    Given labels are known from the end of their ingest on, places of vectors from the end of embed, clusters from that
    of triage: `run.json` holds these times. Pseudo-labels are known from the newest label on that their wave learnt
    from, and without any from the end of pseudo_label.
    """
    sources = {"catalog": _given, "embeddings": _places, "triage": _clusters, "pseudo_labels": _pseudo_labels}
    views = {"catalog": "given", "embeddings": "embedding", "triage": "cluster", "pseudo_labels": "pseudo_label"}
    for name, rows in sources.items():
        artifact = run / name
        if artifact.is_dir():
            yield Fact(views[name], read_key(artifact), _known_from(artifact), rows(artifact))


def bought_labels(run: Path) -> tuple[pd.DataFrame, bool] | None:
    """Rows of the view "label" that a run's labels say, and whether a label missing there was withdrawn.

    None where the run has no labels. Each row is known from the time on that it came to count (`as_of`). An export
    of the label store holds every label that counts; an oracle's labels are those of its queue alone.
    """
    artifact = run / "labels"
    if not artifact.is_dir():
        return None
    table = read_table(artifact, "labels.parquet")
    table = table.assign(state="answered")
    table[TIME] = moments(table["as_of"])
    return table, read_json(artifact / "labels.json").get("source") == "readers"


def _known_from(artifact: Path) -> datetime:
    certificate = artifact / "certificate.json"
    newest = read_json(certificate).get("labels_as_of") if certificate.exists() else None
    if newest is None:
        return datetime.fromtimestamp(read_finished(artifact), UTC)
    found: datetime = moments(pd.Series([newest]))[0].to_pydatetime()
    return found


def _given(artifact: Path) -> Iterator[pd.DataFrame]:
    for frame in iterate_table(artifact, "manifest", [ENTITY, "label", "split"]):
        yield frame[frame["label"].notna()].rename(columns={"label": "given_label"})


def _places(artifact: Path) -> Iterator[pd.DataFrame]:
    yield from iterate_table(artifact, "index.parquet", [ENTITY, "shard", "row"])


def _clusters(artifact: Path) -> Iterator[pd.DataFrame]:
    yield from iterate_table(artifact, "clusters.parquet", [ENTITY, "cluster"])


def _pseudo_labels(artifact: Path) -> Iterator[pd.DataFrame]:
    columns = [ENTITY, "label", "confidence", "promoted", "wave"]
    for frame in iterate_table(artifact, "pseudo_labels.parquet", columns):  # a row a uri; only the pool has a wave
        yield frame[frame["wave"].notna()].rename(columns={"label": "pseudo_label"}).drop_duplicates(ENTITY)
