"""Many readers at once, in processes of their own, some of them killed: against both databases."""

import multiprocessing
import os
import random
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from label_stores import check_books, enrol, publish_images
from sqlalchemy import func, select

from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.reading import NoTask, answer, next_task, release, withdraw
from scanloop.labelling.schema import Event, Reading
from scanloop.labelling.settling import standing
from scanloop.labelling.store import open_store

FORK = multiprocessing.get_context("fork")
READERS = [f"reader {number}" for number in range(8)]


def read_on(address: str, reader: str, acknowledged: Connection) -> None:
    """Read until there is nothing more, telling of each reading when the store has taken it, and why it ended."""
    store, draw = open_store(address), random.Random(reader)
    while True:
        found = next_task(store, reader)
        if isinstance(found, NoTask):
            break
        if draw.random() < 0.1:
            release(store, reader, found.task)
            continue
        given = draw.choice(found.classes)
        acknowledged.send((answer(store, reader, found.task, given, found.token).reading, found.task, given))
        if draw.random() < 0.1:
            again = withdraw(store, reader, found.task)
            acknowledged.send((answer(store, reader, again.task, given, again.token).reading, again.task, given))
    acknowledged.send(found.why)
    acknowledged.close()


def start(address: str, reader: str) -> tuple[multiprocessing.Process, Connection]:
    told, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=read_on, args=(address, reader, tell))
    process.start()
    tell.close()
    return process, told


def drained(told: Connection) -> list[object]:
    """All that a reader told, also one that was killed while telling."""
    found: list[object] = []
    try:
        while True:
            found.append(told.recv())
    except (EOFError, OSError):
        return found


def test_eight_readers_at_once_lose_nothing_read_nothing_twice_and_spend_no_cent_too_much(
    address: str, tmp_path: Path
) -> None:
    store = open_store(address)
    enrol(store, *READERS)
    publish_images(store, tmp_path, 200, budget=66.0, policy=DoubleReading("share", share=0.5))  # 120 readings
    store.engine.dispose()
    workers = [start(address, name) for name in READERS]
    told = [drained(connection) for _, connection in workers]
    for process, _ in workers:
        process.join()
        assert process.exitcode == 0
    acknowledged = [one for by_reader in told for one in by_reader if isinstance(one, tuple)]
    store = open_store(address)
    with store.reading() as session:
        rows = select(Reading.id, Reading.task_id, Reading.answer).where(Reading.answer.is_not(None))
        assert {tuple(row) for row in session.execute(rows)} == set(acknowledged)
        assert session.scalar(select(func.count()).select_from(standing().subquery())) == 120
        views = session.scalar(select(func.count()).select_from(Event).where(Event.kind == "view")) or 0
    store.engine.dispose()
    assert {by_reader[-1] for by_reader in told} <= {"budget", "all_read"}
    assert "budget" in {by_reader[-1] for by_reader in told}
    assert views >= 120
    check_books(address)


@pytest.mark.parametrize("seed", range(2))
def test_a_reader_whose_process_is_killed_loses_nothing_that_was_acknowledged(
    address: str, tmp_path: Path, seed: int
) -> None:
    store, draw = open_store(address), random.Random(seed)
    enrol(store, *READERS[:2])
    publish_images(store, tmp_path, 3000, policy=DoubleReading("all"))
    store.engine.dispose()
    workers = [start(address, name) for name in READERS[:2]]
    told: list[object] = []
    for process, connection in workers:
        told += [connection.recv() for _ in range(draw.randrange(1, 20))]
        connection.poll(draw.random() * 0.02)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        told += drained(connection)
        assert process.exitcode == -signal.SIGKILL
    store = open_store(address)
    with store.reading() as session:
        rows = select(Reading.id, Reading.task_id, Reading.answer).where(Reading.answer.is_not(None))
        written = {tuple(row) for row in session.execute(rows)}
    assert set(told) <= written
    assert len(written) - len(told) <= 2, "at most the reading that each was about to tell of"
    found = next_task(store, READERS[0])
    assert not isinstance(found, NoTask)
    answer(store, READERS[0], found.task, "normal", found.token)
    store.engine.dispose()
    check_books(address)
