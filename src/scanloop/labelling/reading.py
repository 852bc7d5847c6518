"""Reading: a task is handed out on lease, answered once, and can be withdrawn, never changed."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import bindparam, delete, exists, insert, select, update
from sqlalchemy.orm import Session

from scanloop.errors import LabellingError, LeaseError
from scanloop.labelling.double_reading import require_answer
from scanloop.labelling.progress import money_left, no_money
from scanloop.labelling.readers import find_reader
from scanloop.labelling.schema import Lease, Reading, Task, UtcTime, Wave
from scanloop.labelling.settling import expire, give_back, is_adjudicated, lock_task, may_be_a_task, settle, standing
from scanloop.labelling.store import Store, record

LEASE = timedelta(minutes=15)
MOST_HELD = 3
"""Tasks in one reader's hands: the one that is read, and those that the page fetched ahead."""
MOST_TRIES, TRY_AGAIN_SECONDS = 20, 0.02
"""Where all that is left to hand out is locked by transactions under way."""


@dataclass(frozen=True)
class Handed:
    """A task in a reader's hands. Nothing tells what a model or another reader says of the image.

    Attributes:
        task: Its number.
        slice_id: The image.
        classes: Answers that give a label; "unsure" and "bad image" give none.
        reason: Why this image was chosen.
        token: To be given with the answer.
        expires_at: When the task goes back, in UTC.
    """

    task: int
    slice_id: str
    classes: tuple[str, ...]
    reason: str
    token: str
    expires_at: datetime


@dataclass(frozen=True)
class NoTask:
    """Why there is no task.

    Attributes:
        why: No wave is open, all is read, the money is spent, the reader holds enough already, or others are at the
            last tasks in this very moment and it is worth asking again.
        message: What to tell the reader.
        left_cents: What is left of the wave's budget, where that was asked.
    """

    why: Literal["no_wave", "all_read", "budget", "holding", "busy"]
    message: str
    left_cents: int | None


@dataclass(frozen=True)
class Recorded:
    """A reading that is in the store for good: its number and its time in UTC."""

    reading: int
    at: datetime


def next_task(store: Store, reader: str, *, beside: Collection[int] = ()) -> Handed | NoTask:
    """The task that a reader should read next, theirs alone until the lease is over.

    A task that they hold already comes first, with a fresh lease, so that asking again after a lost answer hands out
    nothing twice. Else it is the most wanted one that they have not read and that lacks readings, if the wave's budget
    holds the price of one more: what is paid, what is held for tasks in readers' hands, and this one. All of this is
    one transaction.

    Args:
        store: The label store.
        reader: Their name.
        beside: Tasks that the page holds already and does not want again.

    Raises:
        RoleError: Nobody has this name.
    """
    for _ in range(MOST_TRIES):
        try:
            with store.writing() as (session, now):
                found = _next(store, session, find_reader(session, reader), now, beside)
        except NoMoneyError as refused:  # the lease is undone with all else
            with store.reading() as session:
                return NoTask("budget", no_money(session, refused.wave), money_left(session, refused.wave))
        if not isinstance(found, NoTask) or found.why != "busy":
            break
        time.sleep(TRY_AGAIN_SECONDS)
    return found


def answer(store: Store, reader: str, task: int, given: str, token: str) -> Recorded:
    """Write a reading down; the same answer sent again is the same reading.

    Args:
        store: The label store, whose clock stamps the reading.
        reader: Who gives it.
        task: The task.
        given: One of the wave's classes, "unsure" or "bad image".
        token: Of the lease.

    Raises:
        LeaseError: The lease is over, somebody else's, or was answered otherwise.
        LabellingError: The answer is none that can be given.
        RoleError: Nobody has this name.
    """
    if not may_be_a_task(task) or not token.isprintable():
        raise LeaseError(_GONE)
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        lease = session.execute(_TO_ANSWER, {"token": token, "reader": who, "task": task}).one_or_none()
        if lease is None:
            return _answered_before(session, who, task, given, token)
        if lease.expires_at <= now:
            raise LeaseError(_GONE)
        require_answer(given, lease.classes)
        session.execute(delete(Lease).where(Lease.id == lease.id))
        values = {"answer": given, "token": token, "paid_cents": lease.price_cents, "leased_at": lease.leased_at}
        number = add_reading(session, task, who, now, values)
        if lease.wanted > 1 or lease.double == "disagreement":
            settle(session, task)
        record(session, now, "answer", reader=who, task=task, wave=lease.wave_id, answer=given)
        return Recorded(number, now)


def withdraw(store: Store, reader: str, task: int) -> Handed:
    """Take a reader's answer back and the task into their hands again, for what the answer cost; twice is as once.

    The answer stays in the store, with a further row that withdraws it.

    Raises:
        LeaseError: The reader has no answer there that counts.
        LabellingError: An adjudicator has decided since.
        RoleError: Nobody has this name.
    """
    if not may_be_a_task(task):
        raise LeaseError(_NOT_MINE)
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        lock_task(session, task)
        mine = session.execute(standing().where(Reading.task_id == task, Reading.reader_id == who)).one_or_none()
        if mine is None:
            again = session.execute(_lease().where(Lease.task_id == task, Lease.reader_id == who)).one_or_none()
            if again is None or again.expires_at <= now:
                raise LeaseError(_NOT_MINE)
            return _handed(again, again.token, again.expires_at)
        if is_adjudicated(session, task):
            raise LabellingError("an adjudicator has decided on this image; ask them to decide again")
        columns = (Task.id.label("task_id"), Task.slice_id, Task.reason, Task.wave_id, Wave.classes, Wave.price_cents)
        about = session.execute(select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.id == task)).one()
        add_reading(session, task, who, now, {"withdraws": mine.id, "paid_cents": -about.price_cents})
        record(session, now, "withdraw", reader=who, task=task, wave=about.wave_id, reading=mine.id)
        back = _lease_out(store, session, about, who, now)
        settle(session, task)
        return back


def release(store: Store, reader: str, task: int) -> None:
    """Give a task back unread, with the money held for it; a task that is not in these hands is left as it is.

    Raises:
        RoleError: Nobody has this name.
    """
    if not may_be_a_task(task):
        return
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        query = _lease().where(Lease.task_id == task, Lease.reader_id == who)
        lease = session.execute(query.with_for_update(of=Lease)).one_or_none()
        if lease is None:
            return
        lock_task(session, task)
        session.execute(delete(Lease).where(Lease.id == lease.id))
        settle(session, task)
        give_back(session, lease.wave_id, 1)
        record(session, now, "release", reader=who, task=task, wave=lease.wave_id)


def _lease() -> Any:
    """Leases with what their tasks and waves say."""
    of_lease = (Lease.id, Lease.task_id, Lease.token, Lease.leased_at, Lease.expires_at)
    of_task = (Task.slice_id, Task.reason, Task.wanted, Task.wave_id, Wave.classes, Wave.price_cents, Wave.double)
    return select(*of_lease, *of_task).join(Task, Task.id == Lease.task_id).join(Wave, Wave.id == Task.wave_id)


def _most_wanted() -> Any:
    """The best-ranked task of the open wave that this reader has neither read nor in hands and that lacks readings."""
    was_mine = exists().where(Reading.task_id == Task.id, Reading.reader_id == bindparam("reader"))
    is_mine = exists().where(Lease.task_id == Task.id, Lease.reader_id == bindparam("reader"))
    columns = (Task.id.label("task_id"), Task.slice_id, Task.reason, Task.wave_id, Wave.classes)
    query = select(*columns).join(Wave, Wave.id == Task.wave_id).where(Wave.closed_at.is_(None))
    return query.where(Task.slots > 0, ~was_mine, ~is_mine).order_by(Task.wave_id.desc(), Task.rank).limit(1)


# Built once: a server runs each of these for every image that is read.
_TO_ANSWER = (
    _lease()
    .where(Lease.token == bindparam("token"), Lease.reader_id == bindparam("reader"), Task.id == bindparam("task"))
    .with_for_update(of=(Lease, Task), key_share=True)
)
_IN_HANDS = (
    _lease()
    .where(Lease.reader_id == bindparam("reader"), Lease.expires_at > bindparam("now", type_=UtcTime))
    .order_by(Lease.id)
    .with_for_update(of=Lease, skip_locked=True, key_share=True)
)
_MOST_WANTED = _most_wanted()
_MOST_WANTED_LOCKED = _MOST_WANTED.with_for_update(of=Task, skip_locked=True, key_share=True)
_NOT_MINE = "there is no answer of yours to withdraw here"
_GONE = "this task is not in your hands any longer; ask for the next one"


def _next(store: Store, session: Session, who: int, now: datetime, beside: Collection[int]) -> Handed | NoTask:
    expire(session, now)
    held = session.execute(_IN_HANDS, {"reader": who, "now": now}).all()
    for lease in held:
        if lease.task_id not in beside:
            session.execute(update(Lease).where(Lease.id == lease.id).values(expires_at=now + LEASE))
            return _handed(lease, lease.token, now + LEASE)
    if len(held) >= MOST_HELD:
        return NoTask("holding", f"{len(held)} tasks are in your hands; answer or release one", None)
    task = session.execute(_MOST_WANTED_LOCKED, {"reader": who}).one_or_none()
    if task is not None:
        session.execute(update(Task).where(Task.id == task.task_id).values(slots=Task.slots - 1))
        handed = _lease_out(store, session, task, who, now)
        reserve(session, task.wave_id)  # last: every reader waits for this row
        return handed
    wave = session.execute(select(Wave.id).where(Wave.closed_at.is_(None))).scalar_one_or_none()
    if wave is None:
        return NoTask("no_wave", "no wave is open; there is nothing to read until a queue is published", None)
    why = f"every image of wave {wave} that is yours to read is read or in other readers' hands"
    is_locked = session.execute(_MOST_WANTED, {"reader": who}).one_or_none() is not None
    return NoTask("busy" if is_locked else "all_read", why, money_left(session, wave))


def _answered_before(session: Session, who: int, task: int, given: str, token: str) -> Recorded:
    known = session.execute(select(Reading).where(Reading.token == token)).scalar_one_or_none()
    if known is None:
        raise LeaseError(_GONE)
    if (known.reader_id, known.task_id, known.answer) != (who, task, given):
        raise LeaseError("this task was answered already; withdraw the answer to give another one")
    return Recorded(known.id, known.at)


class NoMoneyError(Exception):
    """The budget of a wave holds no further reading: what this transaction did is undone."""

    def __init__(self, wave: int) -> None:
        super().__init__(wave)
        self.wave = wave


def reserve(session: Session, wave: int) -> None:
    """Hold the price of one more reading, if the budget has it."""
    more = Wave.committed_cents + Wave.price_cents
    asked = update(Wave).where(Wave.id == wave, more <= Wave.budget_cents).values(committed_cents=more)
    if session.execute(asked.returning(Wave.id)).scalar_one_or_none() is None:
        raise NoMoneyError(wave)


def _lease_out(store: Store, session: Session, task: Any, who: int, now: datetime) -> Handed:
    token, until = store.new_token(), now + LEASE
    values = {"task_id": task.task_id, "reader_id": who, "token": token, "leased_at": now, "expires_at": until}
    session.execute(insert(Lease).values(values))
    record(session, now, "view", reader=who, task=task.task_id, wave=task.wave_id)
    return _handed(task, token, until)


def _handed(task: Any, token: str, until: datetime) -> Handed:
    return Handed(task.task_id, task.slice_id, tuple(task.classes), task.reason, token, until)


def add_reading(session: Session, task: int, who: int, at: datetime, values: dict[str, Any]) -> int:
    """Number of a row that is written down for a reader."""
    row = {"task_id": task, "reader_id": who, "at": at} | values
    return session.execute(insert(Reading).values(row).returning(Reading.id)).scalar_one()
