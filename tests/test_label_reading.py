"""Handing out, answering and withdrawing: no task twice, no cent too much, nothing that was read is lost."""

from pathlib import Path

import pytest
from label_stores import CLASSES, Clock, enrol, publish_images, read_one, slice_ids, take
from sqlalchemy import func, select

from scanloop.errors import LabellingError, LeaseError, RoleError
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.reading import LEASE, NoTask, answer, next_task, release, withdraw
from scanloop.labelling.schema import Event, Lease, Reading, Wave
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store


def refused(store: Store, reader: str) -> NoTask:
    found = next_task(store, reader)
    assert isinstance(found, NoTask), found
    return found


def answers(store: Store) -> list[str | None]:
    with store.reading() as session:
        return [row.answer for row in session.execute(standing().order_by(Reading.id))]


def committed(store: Store) -> int:
    with store.reading() as session:
        return session.scalar(select(Wave.committed_cents)) or 0


def test_ten_euros_at_55_cents_are_eighteen_readings_and_the_nineteenth_is_told_why_not(
    store: Store, tmp_path: Path
) -> None:
    publish_images(store, tmp_path, 40, budget=10.0)
    enrol(store, "anna", "ben")
    for number in range(18):
        read_one(store, ("anna", "ben")[number % 2], "normal")
    why = refused(store, "anna")
    assert (why.why, why.left_cents) == ("budget", 10)
    assert "EUR 10.00, EUR 9.90 is spent and EUR 0.00 held" in why.message
    assert "EUR 0.10 is left" in why.message
    assert len(answers(store)) == 18


def test_money_is_held_for_a_task_in_hands_and_comes_back_with_it(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 5, budget=1.0)
    enrol(store, "anna", "ben")
    first = take(store, "anna")
    why = refused(store, "ben")
    assert why.why == "budget"
    assert "EUR 0.00 is spent and EUR 0.55 held" in why.message
    release(store, "anna", first.task)
    release(store, "anna", first.task)
    again = take(store, "ben")
    assert again.task == first.task
    clock.move(seconds=LEASE.total_seconds())
    assert take(store, "anna").task == first.task, "the lease is over"
    assert committed(store) == 55


def test_tasks_come_by_rank_and_no_two_readers_get_the_same_first_reading(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 4)
    enrol(store, "anna", "ben")
    assert [take(store, name).slice_id for name in ("anna", "ben")] == slice_ids(2)
    page = take(store, "anna")
    assert page.slice_id == slice_ids(1)[0], "what is in hands comes first"
    ahead = take(store, "anna", beside=[page.task])
    assert ahead.slice_id == slice_ids(3)[2]
    assert take(store, "anna", beside=[page.task]) == ahead, "asking again hands out nothing more"


def test_a_reader_holds_three_tasks_at_most(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 9)
    enrol(store, "anna")
    held: list[int] = []
    for _ in range(3):
        held.append(take(store, "anna", beside=held).task)
    found = next_task(store, "anna", beside=held)
    assert isinstance(found, NoTask)
    assert found.why == "holding"


def test_nothing_is_open_before_a_queue_is_published_and_all_is_read_after_the_last_image(
    store: Store, tmp_path: Path
) -> None:
    enrol(store, "anna", "ben")
    assert refused(store, "anna").why == "no_wave"
    publish_images(store, tmp_path, 1, policy=DoubleReading("all"))
    read_one(store, "anna", "normal")
    assert refused(store, "anna").why == "all_read", "the second reading is for another reader"
    read_one(store, "ben", "normal")
    assert refused(store, "ben").why == "all_read"


def test_an_answer_sent_twice_is_one_reading_and_another_answer_is_refused(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 2)
    enrol(store, "anna", "ben")
    task = take(store, "anna")
    first = answer(store, "anna", task.task, "normal", task.token)
    assert answer(store, "anna", task.task, "normal", task.token) == first
    with pytest.raises(LeaseError, match="answered already"):
        answer(store, "anna", task.task, "pneumonia", task.token)
    with pytest.raises(LeaseError):
        answer(store, "ben", task.task, "normal", task.token)
    assert answers(store) == ["normal"]
    assert committed(store) == 55


def test_what_is_no_answer_and_whoever_holds_no_lease_is_refused(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 2)
    enrol(store, "anna", "ben")
    task = take(store, "anna")
    for given in ("Normal", "", "normal'; DROP TABLE readings; --", "x" * 5000):
        with pytest.raises(LabellingError, match="none of normal, pneumonia, unsure, bad image"):
            answer(store, "anna", task.task, given, task.token)
    for reader, number, token in (("ben", task.task, task.token), ("anna", task.task + 1, task.token), ("anna", 1, "")):
        with pytest.raises(LeaseError, match="not in your hands"):
            answer(store, reader, number, "normal", token)
    with pytest.raises(RoleError):
        next_task(store, "nobody")
    for number in (0, -1, 2**31, 2**70):
        with pytest.raises(LeaseError):
            answer(store, "anna", number, "normal", task.token)
        with pytest.raises(LeaseError):
            withdraw(store, "anna", number)
        release(store, "anna", number)
    for text in ("an\0na", "\ud800", "x" * 10_000):
        with pytest.raises(RoleError):
            next_task(store, text)
        with pytest.raises(LeaseError):
            answer(store, "anna", task.task, "normal", text)
    clock.move(seconds=LEASE.total_seconds())
    with pytest.raises(LeaseError, match="not in your hands"):
        answer(store, "anna", task.task, "normal", task.token)
    assert answers(store) == []


def test_a_withdrawn_answer_stays_written_and_the_task_is_in_the_same_hands_for_the_same_money(
    store: Store, tmp_path: Path
) -> None:
    publish_images(store, tmp_path, 3, budget=0.55)
    enrol(store, "anna", "ben")
    task = read_one(store, "anna", "normal")
    back = withdraw(store, "anna", task.task)
    assert withdraw(store, "anna", task.task) == back
    assert (back.task, back.slice_id) == (task.task, task.slice_id)
    assert answers(store) == []
    assert refused(store, "ben").why == "budget", "the money is held for the answer to come"
    answer(store, "anna", back.task, "pneumonia", back.token)
    with store.reading() as session:
        written = session.execute(select(Reading.answer, Reading.paid_cents).order_by(Reading.id)).all()
    assert [tuple(row) for row in written] == [("normal", 55), (None, -55), ("pneumonia", 55)]
    with pytest.raises(LeaseError, match="no answer of yours"):
        withdraw(store, "ben", task.task)


def test_a_task_that_was_withdrawn_and_left_goes_to_another_reader(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 1)
    enrol(store, "anna", "ben")
    task = read_one(store, "anna", "normal")
    withdraw(store, "anna", task.task)
    clock.move(seconds=LEASE.total_seconds())
    assert refused(store, "anna").why == "all_read", "a reader never reads a task twice"
    assert take(store, "ben").task == task.task
    assert committed(store) == 55


def test_where_model_and_reader_disagree_a_second_reader_is_asked_and_sees_neither(
    store: Store, tmp_path: Path
) -> None:
    model = dict(zip(slice_ids(3), ("normal", "normal", "pneumonia"), strict=True))
    publish_images(store, tmp_path, 3, policy=DoubleReading("disagreement"), model_labels=model)
    enrol(store, "anna", "ben")
    given = [read_one(store, "anna", one) for one in ("normal", "pneumonia", "unsure")]
    second = take(store, "ben")
    assert second.task == given[1].task
    assert {*vars(second)} == {"task", "slice_id", "classes", "reason", "token", "expires_at"}
    assert second.classes == tuple(CLASSES)
    answer(store, "ben", second.task, "normal", second.token)
    assert refused(store, "ben").why == "all_read"


def test_every_view_and_every_answer_is_in_the_audit_trail(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 2)
    enrol(store, "anna")
    task = read_one(store, "anna", "normal")
    withdraw(store, "anna", task.task)
    clock.move(seconds=LEASE.total_seconds())
    take(store, "anna")
    with store.reading() as session:
        kinds = session.scalars(select(Event.kind).order_by(Event.id)).all()
        assert session.scalar(select(func.count()).select_from(Lease)) == 1
    assert kinds == ["publish", "role", "view", "answer", "withdraw", "view", "expire", "view"]
