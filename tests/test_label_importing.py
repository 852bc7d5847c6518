"""Readings from outside: under the rules of lease, policy and money, once, each refusal with its reason."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from label_stores import Clock, enrol, publish_images, read_one, slice_ids, take
from sqlalchemy import select

from scanloop.labelling.batch import open_batch
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.importing import Foreign, Imported, batch_of, import_readings
from scanloop.labelling.reading import LEASE, NoTask, next_task, withdraw
from scanloop.labelling.schema import Event, Reading, Task, Wave
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store
from scanloop.labelling.waves import close_wave


def reading(task: int | None, reader: str | None = "anna", answer: str | None = "normal", **more: str) -> Foreign:
    return Foreign(f"line {task}", task, reader, answer, **more)


def money(store: Store) -> tuple[int, int]:
    """Cents that are committed, and that readings cost."""
    with store.reading() as session:
        paid = sum(session.scalars(select(Reading.paid_cents)))
        return session.scalars(select(Wave.committed_cents)).one(), paid


def why(found: Imported) -> list[str]:
    return [reason for _, reason in found.refused]


def test_the_same_file_twice_adds_nothing(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 3, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    rows = [reading(1), reading(1, "ben", "pneumonia", comment="hilus?"), reading(2, answer="unsure"), reading(1)]
    assert import_readings(store, rows, "csv") == Imported(3, 1, ())
    assert import_readings(store, rows, "csv") == Imported(0, 4, ())
    assert money(store) == (165, 165)
    with store.reading() as session:
        assert session.scalars(select(Task.slots).order_by(Task.id)).all() == [0, 1, 2]
        assert session.scalars(select(Task.id).where(Task.disputed)).all() == [1]
        told = [row.detail for row in session.scalars(select(Event).where(Event.kind == "import").order_by(Event.id))]
    assert told[1] == {"answer": "pneumonia", "source": "csv", "comment": "hilus?"}


def test_the_budget_is_asked_for_each_reading_and_counts_what_is_in_hands(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 9, budget=1.65)
    enrol(store, "anna", "ben")
    take(store, "ben")
    found = import_readings(store, [reading(task) for task in range(2, 9)], "csv")
    assert (found.added, len(found.refused)) == (2, 5)
    assert "holds no further reading" in found.refused[0][1]
    assert "EUR 1.10 is spent and EUR 0.55 held" in found.refused[0][1]
    assert money(store) == (165, 110)


def test_a_task_in_the_readers_own_hands_is_answered_for_the_money_that_is_held(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 2, budget=0.55)
    enrol(store, "anna", "ben")
    task = take(store, "anna")
    (reason,) = why(import_readings(store, [reading(task.task, "ben")], "csv"))
    assert "in other readers' hands" in reason
    assert import_readings(store, [reading(task.task)], "csv").added == 1
    assert money(store) == (55, 55)


def test_a_lease_that_is_over_frees_its_task(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 1, budget=0.55)
    enrol(store, "anna", "ben")
    take(store, "anna")
    clock.move(seconds=LEASE.total_seconds())
    assert import_readings(store, [reading(1, "ben")], "csv").added == 1
    assert money(store) == (55, 55)


def test_what_cannot_come_in_is_listed_with_its_reason_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 4)
    enrol(store, "anna", "ben")
    read_one(store, "anna", "normal")
    gone = read_one(store, "anna", "normal")
    withdraw(store, "anna", gone.task)
    next_task(store, "anna")
    before = money(store)
    cases = {
        "names no task": [reading(None), reading(0), reading(2**40)],
        "task 77 is none of this label store": [reading(77)],
        "names no reader": [reading(3, None), reading(3, "")],
        "nobody with this name": [reading(3, "eve"), reading(3, "\0")],
        "gives no answer, or several": [reading(3, answer=None)],
        "the answer is none of normal": [reading(3, answer="=cmd()"), reading(3, answer="x" * 9999)],
        "answered task 1 otherwise before: normal": [reading(1, answer="pneumonia")],
        "has all its readings": [reading(1, "ben")],
        "withdrew an answer to task 2": [reading(2)],
        "comment is no text": [reading(3, comment="x" * 2001), reading(3, comment="\0")],
        "task 3 is none of this": [reading(3, batch=batch_of("another queue"))],
    }
    for reason, rows in cases.items():
        found = import_readings(store, rows, "csv")
        assert (found.added, found.known) == (0, 0), reason
        assert all(reason in one for one in why(found)), (reason, why(found))
    assert money(store) == before
    assert import_readings(store, [reading(3, batch=batch_of("key-1"))], "csv").added == 1


def test_a_closed_wave_takes_no_more_readings(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 2)
    enrol(store, "anna")
    enrol(store, "clara", role="curator")
    import_readings(store, [reading(1)], "csv")
    close_wave(store, "clara")
    found = import_readings(store, [reading(1), reading(2)], "csv")
    assert (found.known, why(found)) == (1, ["wave 1, of which task 2 is, is closed"])


def test_files_that_come_in_at_once_never_pay_twice_nor_over_the_budget(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 12, budget=5.5, policy=DoubleReading("share", share=0.5))
    enrol(store, "anna", "ben", "clara")
    files = [[reading(task, name) for task in range(1, 13)] for name in ("anna", "ben", "clara", "anna")]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda rows: import_readings(store, rows, "csv"), files)]
    assert sum(one.added for one in found) == 10
    assert money(store) == (550, 550)
    with store.reading() as session:
        given = [(row.task_id, row.reader_id) for row in session.execute(standing())]
        wanted = dict(session.execute(select(Task.id, Task.wanted)).tuples().all())
    assert len({*given}) == len(given) == 10
    assert all(count <= wanted[task] for task, count in Counter(task for task, _ in given).items())


def test_only_what_lacks_readings_leaves_and_a_disagreement_opens_the_second_reading(
    store: Store, tmp_path: Path
) -> None:
    model = dict.fromkeys(slice_ids(3), "normal")
    publish_images(store, tmp_path, 3, policy=DoubleReading("disagreement"), model_labels=model)
    enrol(store, "anna", "ben")
    import_readings(store, [reading(1), reading(2, answer="pneumonia")], "csv")
    take(store, "ben", beside=[take(store, "ben").task])
    batch = open_batch(store)
    assert batch.tasks == ()
    assert isinstance(next_task(store, "anna"), NoTask)
    with store.reading() as session:
        assert len(session.execute(standing()).all()) == 2
