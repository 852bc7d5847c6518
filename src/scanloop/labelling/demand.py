"""When the loop goes round: a wave that is read to the end, and clusters that have left the labels behind."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scanloop.artifacts import read_json
from scanloop.build import read_key
from scanloop.labelling.schema import Event, Lease, Reading, Task, Wave
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store, record

LEARNT, REQUESTED = "learn", "request"
"""Kinds of event: a wave went into a training, and a wave was asked for."""


@dataclass(frozen=True)
class Demand:
    """Whether something is due, and why, or why not yet.

    Attributes:
        is_due: Whether to act.
        why: In words.
        subject: What it is about: a wave's number, or the key of an artifact of `triage`; None for nothing.
    """

    is_due: bool
    why: str
    subject: str | None = None


def learning_due(store: Store) -> Demand:
    """Whether the last wave is read to the end and went into no training yet.

    Read to the end is a wave of which no task lacks a reading, lies before a reader or waits for an adjudicator; a
    closed one whose images nobody holds or disputes counts as well.
    """
    with store.reading() as session:
        wave = session.scalars(select(Wave).order_by(Wave.id.desc()).limit(1)).one_or_none()
        if wave is None:
            return Demand(False, "no wave was published yet")
        if left := _left(session, wave):
            return Demand(False, f"images of wave {wave.id}: {left}", str(wave.id))
        read = standing().join(Task, Task.id == Reading.task_id).where(Task.wave_id == wave.id)
        if not session.scalar(select(func.count()).select_from(read.subquery())):
            return Demand(False, f"nobody read an image of wave {wave.id}", str(wave.id))
        known = select(Event.id).where(Event.wave_id == wave.id, Event.kind == LEARNT).limit(1)
        if session.scalar(known) is not None:
            return Demand(False, f"wave {wave.id} was learnt from before", str(wave.id))
        return Demand(True, f"wave {wave.id} is read to the end", str(wave.id))


def wave_due(store: Store, baseline: Path, triage: Path, most: float) -> Demand:
    """Whether clusters agree so much less with the labels than they did that a new wave should be read.

    Args:
        store: The label store: a wave that is being read is read to its end first, and a triage asks once.
        baseline: Artifact of `triage` that the labels were chosen by.
        triage: That of today's archive.
        most: Largest fall of the adjusted Rand index that is borne, as a share of the baseline's.
    """
    before, now = (read_json(folder / "triage.json")["ari"] for folder in (baseline, triage))
    if before is None or now is None or before <= 0:
        return Demand(False, f"the adjusted Rand index cannot be compared: {before} then, {now} now")
    fall = (before - now) / before
    told = (
        f"the clusters' agreement with the labels (ARI) was {before:.3f} and is {now:.3f}, a fall of {100 * fall:.0f} %"
    )
    if fall <= most:
        return Demand(False, f"{told}; {100 * most:.0f} % are borne")
    key = read_key(triage)
    with store.reading() as session:
        wave = session.scalars(select(Wave).where(Wave.closed_at.is_(None)).limit(1)).one_or_none()
        if wave is not None and (left := _left(session, wave)):
            return Demand(False, f"{told}; wave {wave.id} is being read ({left})", key)
        asked = session.scalars(select(Event.detail).where(Event.kind == REQUESTED))
        if any(detail.get("triage") == key for detail in asked):
            return Demand(False, f"{told}; a wave was asked for already", key)
    return Demand(True, told, key)


def _left(session: Session, wave: Wave) -> str:
    """What of a wave is still to be done, in words; nothing where it is read to the end."""
    tasks = select(Task.id).where(Task.wave_id == wave.id)
    counted = {
        "lack readings": tasks.where(Task.slots > 0),
        "lie before readers": select(Lease.id).join(Task, Task.id == Lease.task_id).where(Task.wave_id == wave.id),
        "wait for an adjudicator": tasks.where(Task.disputed),
    }
    if wave.closed_at is not None:
        del counted["lack readings"]
    counts = {what: session.scalar(select(func.count()).select_from(part.subquery())) for what, part in counted.items()}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def note_learnt(store: Store, wave: int, run: str) -> None:
    """Write down that a wave went into a training, so that it does not go into another by itself."""
    with store.writing() as (session, at):
        record(session, at, LEARNT, wave=wave, run=run)


def note_requested(store: Store, triage: str, why: str) -> None:
    """Write down that a wave was asked for on account of this triage."""
    with store.writing() as (session, at):
        record(session, at, REQUESTED, triage=triage, why=why)
