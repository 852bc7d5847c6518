"""Export: the readings as of any time, as the artifact `labels` that the steps learn from."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from scanloop.artifacts import write_json, write_table
from scanloop.build import step
from scanloop.errors import LabellingError
from scanloop.labelling.double_reading import NO_LABEL, disagree
from scanloop.labelling.schema import Adjudication, Export, Reading, Task, Wave
from scanloop.labelling.settling import policy_of, standing
from scanloop.labelling.store import Store, record
from scanloop.provenance import digest
from scanloop.sources import Section


@dataclass(frozen=True)
class LabelsSummary:
    """How many images were read to the end, of how many that were asked for, and what all readings cost."""

    answered: int
    queued: int
    price_eur: float


class Answers(Section):
    """What decides the artifact: the rows that were read out of the store."""

    digest: str


@dataclass(frozen=True)
class _Settled:
    label: str | None
    readers: int
    agreement: float
    adjudicated: bool
    at: datetime


def export(store: Store, output: Path, as_of: datetime | None = None) -> LabelsSummary:
    """Write the labels as they stood at a time; what is read or withdrawn later never changes them.

    A task counts when it has all its readings, or when its wave is closed and it has any. Readings that differ count
    once an adjudicator has decided. "unsure" and "bad image" stand with no label, so that they are not asked for
    again. The agreement is the share of readings that gave what counts, and `as_of` when it came to count. Equal
    states give equal bytes, and the key of what was made from them.

    Args:
        store: The label store.
        output: Directory for the labels; a folder of their kind that is there is replaced.
        as_of: The time, in UTC; now by default.

    Raises:
        LabellingError: The time is not over.
    """
    with store.writing(alone=True) as (session, now):
        moment = now if as_of is None else as_of.astimezone(UTC)
        if moment > now:
            raise LabellingError(f"{moment.isoformat()} is not over: labels are known as of a time up to now")
        table, facts = labels_as_of(session, moment)
        found = digest([table.to_dict("records"), facts])
        session.execute(insert(Export).values(as_of=moment, digest=found))
        record(session, now, "export", as_of=moment.isoformat(), labels=len(table), digest=found)
    return collect(Answers(digest=found), table=table, facts=facts, output=output)


@step("labels")
def collect(config: Answers, *, table: pd.DataFrame, facts: dict[str, Any], output: Path) -> LabelsSummary:
    """Labels that readers gave.

    Args:
        config: Digest of the rows and facts.
        table: Rows of `labels.parquet`.
        facts: What `labels.json` says of them.
        output: Directory for the labels.
    """
    write_table(output, "labels.parquet", table)
    write_json(output / "labels.json", facts | {"digest": config.digest})
    return LabelsSummary(len(table), facts["queued"], facts["price_eur"])


def labels_as_of(session: Session, as_of: datetime) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows of `labels.parquet` as of a time, and what `labels.json` says of them."""
    readings, decided = defaultdict(list), {}
    for reading in session.execute(standing(as_of).order_by(Reading.id)):
        readings[reading.task_id].append(reading)
    for row in session.scalars(select(Adjudication).where(Adjudication.at <= as_of).order_by(Adjudication.id)):
        decided[row.task_id] = row
    waves = session.scalars(select(Wave).where(Wave.published_at <= as_of).order_by(Wave.id)).all()
    rows, disputed = [], 0
    for wave in waves:
        columns = (Task.id, Task.slice_id, Task.purpose, Task.wanted, Task.model_label)
        tasks = select(*columns).where(Task.wave_id == wave.id).order_by(Task.rank)
        closed = wave.closed_at if wave.closed_at is not None and wave.closed_at <= as_of else None
        for task in session.execute(tasks):
            read = readings.get(task.id, [])
            wanted = policy_of(wave).wanted(task.wanted, task.model_label, [one.answer for one in read])
            if not read or (len(read) < wanted and closed is None):
                continue
            begins = None if len(read) >= wanted else closed
            if (settled := _settled(read, decided.get(task.id), begins)) is None:
                disputed += 1
                continue
            rows.append(_row(task, settled))
    table = pd.DataFrame(rows, columns=["slice_id", "label", "readers", "agreement", "adjudicated", "as_of", "purpose"])
    return table, _facts(session, as_of, table, disputed)


def _settled(read: list[Any], decision: Adjudication | None, closed: datetime | None) -> _Settled | None:
    """What counts of a task's readings; None where they differ and nobody has decided."""
    answers = Counter(one.answer for one in read)
    if decision is None and disagree(answers):
        return None
    answer = str(read[0].answer) if decision is None else decision.answer
    at = max([one.at for one in read] + ([closed] if closed else [])) if decision is None else decision.at
    label = None if answer in NO_LABEL else answer
    return _Settled(label, len(read), answers[answer] / len(read), decision is not None, at)


def _row(task: Any, settled: _Settled) -> dict[str, Any]:
    return {
        "slice_id": task.slice_id,
        "label": settled.label,
        "readers": settled.readers,
        "agreement": settled.agreement,
        "adjudicated": settled.adjudicated,
        "as_of": settled.at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        "purpose": task.purpose,
    }


def _facts(session: Session, as_of: datetime, table: pd.DataFrame, disputed: int) -> dict[str, Any]:
    waves = session.execute(
        select(Wave.queue_key, Wave.data_digest, func.count(Task.id)).join(Task, isouter=True)
        .where(Wave.published_at <= as_of).group_by(Wave.id).order_by(Wave.id)
    ).all()  # fmt: skip
    paid = int(session.scalar(select(func.sum(Reading.paid_cents)).where(Reading.at <= as_of)) or 0)
    return {
        "answered": len(table),
        "labelled": int(table["label"].notna().sum()),
        "adjudicated": int(table["adjudicated"].sum()),
        "disputed": disputed,
        "queued": sum(count for _, _, count in waves),
        "readings": int(table["readers"].sum()),
        "price_cents": paid,
        "price_eur": paid / 100,
        "source": "readers",
        "waves": [{"queue": key, "data_digest": data, "tasks": count} for key, data, count in waves],
    }
