"""What stands of a task's readings: how many are still to be handed out, and whether they wait for an adjudicator."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session, aliased

from scanloop.labelling.double_reading import DoubleReading, disagree
from scanloop.labelling.schema import Adjudication, Lease, Reading, Task, Wave
from scanloop.labelling.store import record

LARGEST_NUMBER = 2**31 - 1


def standing(as_of: datetime | None = None) -> Select[int, int, int, str | None, datetime]:
    """Answers that are not withdrawn, or were not at a time."""
    later = aliased(Reading)
    gone = select(later.id).where(later.withdraws == Reading.id)
    columns = (Reading.id, Reading.task_id, Reading.reader_id, Reading.answer, Reading.at)
    query = select(*columns).where(Reading.answer.is_not(None))
    if as_of is not None:
        gone, query = gone.where(later.at <= as_of), query.where(Reading.at <= as_of)
    return query.where(~gone.exists())


def policy_of(wave: Any) -> DoubleReading:
    """Policy of double reading that a wave was published under."""
    return DoubleReading(wave.double, wave.readings, wave.share, wave.seed)


def may_be_a_task(task: int) -> bool:
    """Whether a number that came from outside can be a task's: databases refuse larger ones in their own words."""
    return 0 < task <= LARGEST_NUMBER


def lock_task(session: Session, task: int) -> None:
    """Hold a task until the transaction ends; tasks are locked before waves, several in the order of their numbers."""
    session.execute(select(Task.id).where(Task.id == task).with_for_update(key_share=True))


def settle(session: Session, task: int) -> None:
    """Bring a task in line with its readings and leases; whoever changed either calls this, with the task locked."""
    columns = (Task.wanted, Task.model_label, Wave.double, Wave.readings, Wave.share, Wave.seed, Wave.closed_at)
    about = session.execute(select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.id == task)).one()
    answers = [row.answer for row in session.execute(standing().where(Reading.task_id == task))]
    held = session.scalar(select(func.count()).select_from(Lease).where(Lease.task_id == task)) or 0
    wanted = policy_of(about).wanted(about.wanted, about.model_label, answers)
    is_read = len(answers) >= wanted or about.closed_at is not None
    disputed = is_read and disagree(answers) and not is_adjudicated(session, task)
    slots = max(0, wanted - len(answers) - held)
    session.execute(update(Task).where(Task.id == task).values(slots=slots, disputed=disputed))


def is_adjudicated(session: Session, task: int) -> bool:
    """Whether an adjudicator has decided a task."""
    return session.scalar(select(Adjudication.id).where(Adjudication.task_id == task).limit(1)) is not None


def expire(session: Session, now: datetime) -> None:
    """Take back the tasks whose lease is over, and free the money that was held for them."""
    query = select(Lease.id, Lease.task_id, Lease.reader_id, Task.wave_id).join(Task, Task.id == Lease.task_id)
    over = query.where(Lease.expires_at <= now).order_by(Lease.task_id).limit(100)
    _take_back(session, session.execute(over.with_for_update(of=Lease, skip_locked=True)).all(), now, "expire")


def hand_back(session: Session, reader: int, now: datetime) -> None:
    """Take back all tasks in a reader's hands, and free the money that was held for them."""
    query = select(Lease.id, Lease.task_id, Lease.reader_id, Task.wave_id).join(Task, Task.id == Lease.task_id)
    held = query.where(Lease.reader_id == reader).order_by(Lease.task_id).with_for_update(of=Lease)
    _take_back(session, session.execute(held).all(), now, "release")


def _take_back(session: Session, rows: Sequence[Any], now: datetime, kind: str) -> None:
    if not rows:
        return
    session.execute(delete(Lease).where(Lease.id.in_([row.id for row in rows])))
    for task in sorted({row.task_id for row in rows}):
        lock_task(session, task)
        settle(session, task)
    for row in rows:
        record(session, now, kind, reader=row.reader_id, task=row.task_id, wave=row.wave_id)
    for wave in sorted({row.wave_id for row in rows}):
        give_back(session, wave, sum(row.wave_id == wave for row in rows))


def give_back(session: Session, wave: int, leases: int) -> None:
    """Free the money that was held for leases of a wave."""
    freed = Wave.committed_cents - leases * Wave.price_cents
    session.execute(update(Wave).where(Wave.id == wave).values(committed_cents=freed))
