"""How far a wave is: for readers what is left to do, for curators what was spent."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scanloop.labelling.schema import Lease, Reader, Reading, Task, Wave
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store

PACE, LATELY = timedelta(hours=1), timedelta(minutes=10)


@dataclass(frozen=True)
class Progress:
    """The open wave, or the last one.

    Attributes:
        wave: Its number.
        is_open: Whether tasks are handed out.
        tasks: Images that were asked for.
        read: Of these, with all the readings that they want.
        begun: Of these, with some of them.
        disputed: Of these, waiting for an adjudicator.
        budget_cents: What the readings may cost together.
        spent_cents: What the readings that stand cost.
        held_cents: What is held for tasks in readers' hands.
        mine: Readings of this reader in the wave that stand.
        my_last_hour: Of these, given within the last hour: the pace.
    """

    wave: int
    is_open: bool
    tasks: int
    read: int
    begun: int
    disputed: int
    budget_cents: int
    spent_cents: int
    held_cents: int
    mine: int
    my_last_hour: int


def progress(store: Store, reader: str) -> Progress | None:
    """How far the open wave is, or the last one; None before the first.

    Args:
        store: The label store.
        reader: Whose pace.
    """
    with store.reading() as session:
        wave = session.scalars(select(Wave).order_by(Wave.id.desc()).limit(1)).one_or_none()
        if wave is None:
            return None

        def count(query: Any) -> int:
            return session.scalar(select(func.count()).select_from(query.subquery())) or 0

        tasks = select(Task.id).where(Task.wave_id == wave.id)
        of_wave = standing().join(Task, Task.id == Reading.task_id).where(Task.wave_id == wave.id)
        mine = of_wave.join(Reader, Reader.id == Reading.reader_id).where(Reader.name == reader)
        held = count(select(Lease.id).join(Task, Task.id == Lease.task_id).where(Task.wave_id == wave.id))
        touched = count(select(of_wave.subquery().c.task_id).distinct())
        in_hands = select(Lease.id).where(Lease.task_id == Task.id).exists()
        read = count(tasks.where(Task.slots == 0, ~in_hands))
        held_cents = held * wave.price_cents
        return Progress(
            wave=wave.id,
            is_open=wave.closed_at is None,
            tasks=count(tasks),
            read=read,
            begun=touched - read,
            disputed=count(tasks.where(Task.disputed)),
            budget_cents=wave.budget_cents,
            spent_cents=wave.committed_cents - held_cents,
            held_cents=held_cents,
            mine=count(mine),
            my_last_hour=count(mine.where(Reading.at > store.clock() - PACE)),
        )


@dataclass(frozen=True)
class Pace:
    """What one reader read: their readings of a wave that stand, and all of the last hour and ten minutes that do."""

    mine: int
    last_hour: int
    last_ten_minutes: int


def pace(store: Store, reader: str, wave: int) -> Pace:
    """How fast somebody reads; it looks at their own readings alone.

    Args:
        store: The label store.
        reader: Their name.
        wave: Number of the wave that `mine` counts.
    """
    with store.reading() as session:
        who = select(Reader.id).where(Reader.name == reader).scalar_subquery()
        mine = standing().where(Reading.reader_id == who).subquery()
        now = store.clock()
        counts = [func.count().filter(condition) for condition in (
            Task.wave_id == wave, mine.c.at > now - PACE, mine.c.at > now - LATELY,
        )]  # fmt: skip
        found = session.execute(select(*counts).select_from(mine).join(Task, Task.id == mine.c.task_id)).one()
        return Pace(*map(int, found))


def last_hour(store: Store) -> dict[str, int]:
    """Readings within the last hour that stand, by reader."""
    with store.reading() as session:
        lately = standing().where(Reading.at > store.clock() - PACE).subquery()
        query = select(Reader.name, func.count()).join(lately, lately.c.reader_id == Reader.id).group_by(Reader.name)
        return dict(session.execute(query).tuples().all())


def money_left(session: Session, wave: int) -> int:
    """What is neither spent nor held of a wave's budget, in cents."""
    left = select(Wave.budget_cents - Wave.committed_cents).where(Wave.id == wave)
    return int(session.execute(left).scalar_one())


def no_money(session: Session, number: int) -> str:
    """Why a wave's budget holds no further reading, and what is left of it."""
    wave = session.execute(select(Wave).where(Wave.id == number)).scalar_one()
    readings = (
        select(Reading.paid_cents).join(Task, Task.id == Reading.task_id).where(Task.wave_id == number).subquery()
    )
    paid = int(session.scalar(select(func.sum(readings.c.paid_cents))) or 0)
    return (
        f"the budget of wave {number} holds no further reading at {_eur(wave.price_cents)}: of "
        f"{_eur(wave.budget_cents)}, {_eur(paid)} is spent and {_eur(wave.committed_cents - paid)} held for images in "
        f"readers' hands; {_eur(wave.budget_cents - wave.committed_cents)} is left. A curator can raise "
        "the budget, on the page"
    )


def _eur(amount_cents: int) -> str:
    return f"EUR {amount_cents // 100}.{amount_cents % 100:02d}"
