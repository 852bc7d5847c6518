"""Looking: which image, alike images and model's word somebody may see of a task; each look is written down."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from scanloop.errors import LeaseError, RoleError
from scanloop.labelling.readers import ROLES, find_reader
from scanloop.labelling.schema import Adjudication, Lease, Reader, Reading, Task, UtcTime, Wave
from scanloop.labelling.settling import may_be_a_task, standing
from scanloop.labelling.store import Store, record

_NOT_YOURS = "this task is not in your hands; ask for the next one"


@dataclass(frozen=True)
class ModelsWord:
    """What the model said of an image: calibrated probabilities in [0, 1] by class; None where it said nothing."""

    task: int
    probabilities: dict[str, float] | None


def image_of(store: Store, reader: str, task: int) -> str:
    """Slice id of a task's image, for who holds the task, adjudicators where it is disputed, and curators.

    Raises:
        LeaseError: It is not theirs to see.
        RoleError: Nobody has this name.
    """
    with store.reading() as session:
        about = _about(session, reader, task, store.clock())
    if about.is_held:
        return str(about.slice_id)  # its view was written down when the task was handed out
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        record(session, now, "view", reader=who, task=task, wave=about.wave_id, role=about.role)
    return str(about.slice_id)


def alike_images(store: Store, reader: str, task: int) -> list[tuple[str, str]]:
    """Slice id and label of the labelled images that are most alike, nearest first.

    Raises:
        LeaseError: The task is not theirs to see.
        RoleError: Nobody has this name.
    """
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        about = _about(session, reader, task, now)
        found = about.neighbours or []
        record(session, now, "neighbours", reader=who, task=task, wave=about.wave_id, shown=len(found))
    return [(str(slice_id), str(label)) for slice_id, label in found]


def neighbour_of(store: Store, reader: str, task: int, index: int) -> str:
    """Slice id of one of them, the nearest being number 0.

    Raises:
        LeaseError: The task is not theirs to see, or has fewer of them.
        RoleError: Nobody has this name.
    """
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        about = _about(session, reader, task, now)
        found = about.neighbours or []
        if not 0 <= index < len(found):
            raise LeaseError("this task has no such neighbour")
        record(session, now, "neighbour", reader=who, task=task, wave=about.wave_id, index=index)
    return str(found[index][0])


def reveal(store: Store, reader: str, task: int, *, beforehand: bool = False) -> ModelsWord:
    """What the model said of an image, for who has answered or decided it; each look is written down.

    Args:
        store: The label store.
        reader: Their name.
        task: The task.
        beforehand: Whether those may look, too, who have not answered yet. It anchors them.

    Raises:
        LeaseError: They have not answered, or the task is not theirs.
        RoleError: Nobody has this name.
    """
    if not may_be_a_task(task):
        raise LeaseError(_NOT_YOURS)
    with store.writing() as (session, now):
        who = find_reader(session, reader)
        answered = standing().where(Reading.task_id == task, Reading.reader_id == who)
        decided = select(Adjudication.id).where(Adjudication.task_id == task, Adjudication.reader_id == who)
        has_said = session.execute(answered.limit(1)).first() or session.execute(decided.limit(1)).first()
        if not has_said:
            if not beforehand:
                raise LeaseError("what the model says is shown after the answer")
            _about(session, reader, task, now)
        columns = (Task.probabilities, Task.wave_id, Wave.classes)
        about = session.execute(select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.id == task)).one()
        record(session, now, "reveal", reader=who, task=task, wave=about.wave_id, answered=bool(has_said))
        said = about.probabilities
        return ModelsWord(task, None if said is None else dict(zip(about.classes, said, strict=True)))


@dataclass(frozen=True)
class _About:
    slice_id: str
    wave_id: int
    neighbours: list[list[str]] | None
    role: str
    is_held: bool


# Built once, and asked in one go: every image that is shown is asked for here.
_TASK_FOR = (
    select(
        Reader.role, Reader.disabled_at, Task.slice_id, Task.wave_id, Task.disputed, Task.neighbours,
        Lease.id.label("lease"),
    )
    .select_from(Reader)
    .outerjoin(Task, Task.id == bindparam("task"))
    .outerjoin(
        Lease,
        (Lease.task_id == Task.id)
        & (Lease.reader_id == Reader.id)
        & (Lease.expires_at > bindparam("now", type_=UtcTime)),
    )
    .where(Reader.name == bindparam("reader"))
)  # fmt: skip


def _about(session: Session, reader: str, task: int, now: datetime) -> _About:
    """A task that is theirs to see."""
    if not may_be_a_task(task):
        raise LeaseError(_NOT_YOURS)
    who = session.execute(_TASK_FOR, {"reader": reader, "task": task, "now": now}).one_or_none()
    if who is None or who.disabled_at is not None:
        raise RoleError("nobody with this name reads here; a curator adds readers")
    is_held = who.lease is not None
    role = ROLES.index(who.role)
    may_see = is_held or role >= ROLES.index("curator") or (role >= ROLES.index("adjudicator") and who.disputed)
    if who.slice_id is None or not may_see:
        raise LeaseError(_NOT_YOURS)
    return _About(who.slice_id, who.wave_id, who.neighbours, who.role, is_held)
