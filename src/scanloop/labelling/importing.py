"""Readings that were given elsewhere come in under the same rules: the lease, the policy and the money."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from scanloop.errors import LabellingError
from scanloop.labelling.adjudication import LONGEST_COMMENT
from scanloop.labelling.double_reading import require_answer
from scanloop.labelling.progress import no_money
from scanloop.labelling.readers import find_reader
from scanloop.labelling.reading import NoMoneyError, add_reading, reserve
from scanloop.labelling.schema import Lease, Reading, Task, Wave
from scanloop.labelling.settling import expire, lock_task, may_be_a_task, settle, standing
from scanloop.labelling.store import Store, record


@dataclass(frozen=True)
class Foreign:
    """A reading in a file.

    Attributes:
        place: Where it stands there, for whoever has to mend it.
        task: Number of the task; None where there is none.
        reader: Name of the reader.
        answer: What they said; None where they said nothing that can be an answer.
        comment: What they wrote beside it; it goes into the audit trail.
        batch: What the file says the task belongs to, from `batch_of`; empty where it says nothing.
    """

    place: str
    task: int | None
    reader: str | None
    answer: str | None
    comment: str = ""
    batch: str = ""


@dataclass(frozen=True)
class Imported:
    """What became of a file's readings.

    Attributes:
        added: Readings that are in the store now.
        known: Readings that were there before.
        refused: The others: where they stand in the file, and why not.
    """

    added: int
    known: int
    refused: tuple[tuple[str, str], ...]


def batch_of(queue_key: str) -> str:
    """Name of a wave in files that leave: a file that comes back says which store and queue it is about."""
    return hashlib.sha256(f"batch/{queue_key}".encode()).hexdigest()[:16]


def import_readings(store: Store, readings: Iterable[Foreign], source: str) -> Imported:
    """Add readings that were given outside; the same file again adds nothing.

    A task that is in the reader's hands is answered; any other is taken if it lacks a reading that is in nobody's
    hands, in the open wave, and if the budget holds its price: each in one transaction. A file cannot change an answer,
    nor give one again that was withdrawn.

    Args:
        store: The label store, whose clock stamps the readings.
        readings: Those of the file.
        source: Kind of the file, for the audit trail, for example "label studio".
    """
    outcomes: Counter[str] = Counter()
    refused = []
    for one in readings:
        try:
            outcomes["added" if _import(store, one, source) else "known"] += 1
        except NoMoneyError as none_left:
            with store.reading() as session:
                refused.append((one.place, no_money(session, none_left.wave)))
        except LabellingError as error:
            refused.append((one.place, str(error)))
    return Imported(outcomes["added"], outcomes["known"], tuple(refused))


def _import(store: Store, one: Foreign, source: str) -> bool:
    """Whether the reading is new."""
    if one.task is None or not may_be_a_task(one.task):
        raise LabellingError("it names no task")
    if not one.reader:
        raise LabellingError("it names no reader")
    if one.answer is None:
        raise LabellingError("it gives no answer, or several")
    if len(one.comment) > LONGEST_COMMENT or not all(sign.isprintable() or sign in "\n\t" for sign in one.comment):
        raise LabellingError(f"its comment is no text of at most {LONGEST_COMMENT} characters that can be seen")
    with store.writing() as (session, now):
        expire(session, now)  # by itself: it locks waves, and tasks are locked before waves
    with store.writing() as (session, now):
        who = find_reader(session, one.reader)
        lock_task(session, one.task)
        task = _task(session, one.task)
        if task is None or (one.batch and one.batch != batch_of(task.queue_key)):
            raise LabellingError(f"task {one.task} is none of this label store")
        require_answer(one.answer, task.classes)
        if _given_before(session, who, one):
            return False
        leased_at = _take(session, task, who, now)
        values = {
            "answer": one.answer, "token": _token(task.queue_key, one), "paid_cents": task.price_cents,
            "leased_at": leased_at,
        }  # fmt: skip
        add_reading(session, one.task, who, now, values)
        settle(session, one.task)
        told = {"answer": one.answer, "source": source} | ({"comment": one.comment} if one.comment else {})
        record(session, now, "import", reader=who, task=one.task, wave=task.wave_id, **told)
        return True


def _task(session: Session, number: int) -> Any:
    columns = (Task.id, Task.slots, Task.wave_id, Wave.classes, Wave.price_cents, Wave.closed_at, Wave.queue_key)
    query = select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.id == number)
    return session.execute(query).one_or_none()


def _given_before(session: Session, who: int, one: Foreign) -> bool:
    mine = Reading.task_id == one.task, Reading.reader_id == who
    stands = session.execute(standing().where(*mine)).one_or_none()
    if stands is not None:
        if stands.answer != one.answer:
            raise LabellingError(f"{one.reader} answered task {one.task} otherwise before: {stands.answer}")
        return True
    if session.scalar(select(Reading.id).where(*mine).limit(1)) is not None:
        raise LabellingError(f"{one.reader} withdrew an answer to task {one.task}; it is given again on the page only")
    return False


def _take(session: Session, task: Any, who: int, now: datetime) -> datetime:
    """When the task came into these hands: by a lease that they hold, or now, for the price of a reading."""
    lease = session.execute(select(Lease).where(Lease.task_id == task.id, Lease.reader_id == who)).scalar_one_or_none()
    if lease is not None:
        leased_at = lease.leased_at
        session.execute(delete(Lease).where(Lease.id == lease.id))
        return leased_at
    if task.closed_at is not None:
        raise LabellingError(f"wave {task.wave_id}, of which task {task.id} is, is closed")
    if task.slots < 1:
        raise LabellingError(f"task {task.id} has all its readings, or is in other readers' hands")
    reserve(session, task.wave_id)
    return now


def _token(queue_key: str, one: Foreign) -> str:
    return hashlib.sha256(f"import/{queue_key}/{one.task}/{one.reader}".encode()).hexdigest()
