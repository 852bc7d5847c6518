"""Adjudication: where readings disagree, somebody who gave none of them decides."""

from dataclasses import dataclass

from sqlalchemy import insert, select

from scanloop.errors import LabellingError, RoleError
from scanloop.labelling.double_reading import require_answer
from scanloop.labelling.readers import find_reader
from scanloop.labelling.reading import Recorded
from scanloop.labelling.schema import Adjudication, Reading, Task, Wave
from scanloop.labelling.settling import is_adjudicated, lock_task, may_be_a_task, settle, standing
from scanloop.labelling.store import Store, record

LONGEST_COMMENT = 2000


@dataclass(frozen=True)
class Dispute:
    """A task whose readings disagree.

    Attributes:
        task: Its number.
        slice_id: The image.
        classes: Answers that give a label.
        answers: What was read, in the order of reading; not who read it.
    """

    task: int
    slice_id: str
    classes: tuple[str, ...]
    answers: tuple[str, ...]


def disputes(store: Store, adjudicator: str) -> list[Dispute]:
    """Tasks that wait for this adjudicator, most wanted first: not those that they read themselves.

    Raises:
        RoleError: The name is no adjudicator's.
    """
    with store.writing() as (session, _):
        who = find_reader(session, adjudicator, "adjudicator")
        own = select(Reading.id).where(Reading.task_id == Task.id, Reading.reader_id == who).exists()
        columns = (Task.id, Task.slice_id, Wave.classes)
        query = select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.disputed, ~own)
        tasks = session.execute(query.order_by(Task.wave_id, Task.rank)).all()
        answers: dict[int, list[str]] = {row.id: [] for row in tasks}
        read = standing().join(Task, Task.id == Reading.task_id).where(Task.disputed).order_by(Reading.id)
        for row in session.execute(read):
            answers.get(row.task_id, []).append(row.answer)
        return [Dispute(row.id, row.slice_id, tuple(row.classes), tuple(answers[row.id])) for row in tasks]


def adjudicate(store: Store, adjudicator: str, task: int, given: str, comment: str = "") -> Recorded:
    """Decide a task whose readings disagree; a later decision takes an earlier one's place, and both stay written.

    Args:
        store: The label store, whose clock stamps the decision.
        adjudicator: Who decides.
        task: The task.
        given: One of the wave's classes, "unsure" or "bad image".
        comment: Why, at most 2,000 characters.

    Raises:
        RoleError: The name is no adjudicator's, or they read this image themselves.
        LabellingError: The readings do not disagree, or the answer is none that can be given.
    """
    if len(comment) > LONGEST_COMMENT or not all(one.isprintable() or one in "\n\t" for one in comment):
        raise LabellingError(f"a comment is text of at most {LONGEST_COMMENT} characters that can be seen")
    if not may_be_a_task(task):
        raise LabellingError(f"there is no task {task}")
    with store.writing() as (session, now):
        who = find_reader(session, adjudicator, "adjudicator")
        lock_task(session, task)
        columns = (Task.disputed, Task.wave_id, Wave.classes)
        about = session.execute(select(*columns).join(Wave, Wave.id == Task.wave_id).where(Task.id == task)).first()
        if about is None or not (about.disputed or is_adjudicated(session, task)):
            raise LabellingError(f"the readings of task {task} do not disagree; there is nothing to decide")
        own = select(Reading.id).where(Reading.task_id == task, Reading.reader_id == who).limit(1)
        if session.scalar(own) is not None:
            raise RoleError("you read this image yourself; another adjudicator has to decide")
        require_answer(given, about.classes)
        last = select(Adjudication).where(Adjudication.task_id == task).order_by(Adjudication.id.desc()).limit(1)
        known = session.execute(last).scalar_one_or_none()
        if known is not None and (known.reader_id, known.answer, known.comment) == (who, given, comment):
            return Recorded(known.id, known.at)
        values = {"task_id": task, "reader_id": who, "answer": given, "comment": comment, "at": now}
        number = session.execute(insert(Adjudication).values(values).returning(Adjudication.id)).scalar_one()
        settle(session, task)
        record(session, now, "adjudicate", reader=who, task=task, wave=about.wave_id, answer=given)
        return Recorded(number, now)
