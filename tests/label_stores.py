"""Label stores to test with: queues as `acquire` writes them, a clock that is set by hand, SQLite and PostgreSQL."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import create_engine, func, select

from scanloop.artifacts import write_json, write_table
from scanloop.labelling.readers import add_reader
from scanloop.labelling.reading import Handed, answer, next_task
from scanloop.labelling.schema import Lease, Reading, Task, Wave
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import Published, publish

CLASSES = ["normal", "pneumonia"]
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@dataclass
class Tokens:
    """Tokens 0, 1, 2, ... in place of random ones."""

    count: Iterator[int] = field(default_factory=itertools.count)

    def __call__(self) -> str:
        return f"token-{next(self.count)}"


def slice_ids(count: int) -> list[str]:
    return [f"slice-{number:05d}" for number in range(1, count + 1)]


def write_catalog(folder: Path, classes: list[str] | None = None) -> Path:
    write_json(folder / "catalog" / "catalog.json", {"classes": classes or CLASSES, "data_digest": "d" * 64})
    return folder / "catalog"


def write_queue(
    folder: Path, ids: list[str], *, key: str = "key-1", price: float = 0.55, budget: float = 1000.0, audit: int = 0
) -> Path:
    """A queue artifact as `acquire` leaves it, under a key of its own."""
    queue = folder / f"queue-{key}"
    rows = pd.DataFrame({"slice_id": ids, "rank": range(1, len(ids) + 1), "price": price, "reason": "uncertain"})
    rows["purpose"] = ["audit"] * audit + ["train"] * (len(ids) - audit)
    write_table(queue, "queue.parquet", rows)
    write_json(queue / "queue.json", {"price_per_label_eur": price, "budget_eur": budget})
    write_json(queue / "artifact.json", {"key": key})
    return queue


def publish_images(store: Store, folder: Path, count: int, **options: object) -> Published:
    """Publish a queue of so many images; options of the queue and of `publish`."""
    about = {name: options.pop(name) for name in ("key", "price", "budget", "audit") if name in options}
    ids = options.pop("ids", slice_ids(count))
    return publish(store, write_queue(folder, ids, **about), write_catalog(folder), **options)  # type: ignore[arg-type]


def enrol(store: Store, *names: str, role: str = "reader") -> None:
    for name in names:
        add_reader(store, name, role)


def take(store: Store, reader: str, **options: object) -> Handed:
    """The next task of a reader, who must get one."""
    found = next_task(store, reader, **options)  # type: ignore[arg-type]
    assert isinstance(found, Handed), found
    return found


def read_one(store: Store, reader: str, given: str) -> Handed:
    """Let a reader answer the next task."""
    task = take(store, reader)
    answer(store, reader, task.task, given, task.token)
    return task


def check_books(address: str) -> None:
    """Return if tasks, leases, readings and money agree, counted anew from the rows."""
    store = open_store(address)
    with store.reading() as session:
        wave = session.scalars(select(Wave)).one()
        paid = int(session.scalar(select(func.sum(Reading.paid_cents))) or 0)
        held = session.scalars(select(Lease.task_id)).all()
        read = [(row.task_id, row.reader_id) for row in session.execute(standing())]
        counts = Counter([task for task, _ in read] + list(held))
        assert len(set(read)) == len(read), "a reader has read a task twice"
        assert all(counts[task.id] + task.slots == task.wanted for task in session.scalars(select(Task)))
        assert paid == len(read) * wave.price_cents
        assert wave.committed_cents == paid + len(held) * wave.price_cents <= wave.budget_cents
    store.engine.dispose()


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a database on a PostgreSQL server that is started for the tests."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    as_user: list[str] = []
    folder = tmp_path_factory.mktemp("postgres")
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        folder = Path("/tmp") / f"scanloop-postgres-{os.getpid()}"  # root's folders are closed to others
        folder.mkdir(mode=0o700)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c max_connections=60 -c fsync=off -k {folder}"

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(binaries / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    run("initdb", "-A", "trust", "-U", "scanloop", "-N")
    run("pg_ctl", "-l", str(folder / "log"), "-o", options, "-w", "start")
    yield f"postgresql://scanloop@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'labels.db'}"
    server: str = request.getfixturevalue("postgres")
    engine = create_engine(server.replace("postgresql:", "postgresql+pg8000:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(address: str, clock: Clock) -> Iterator[Store]:
    """An empty label store of either kind, under a clock that is set by hand."""
    opened = open_store(address, clock=clock, new_token=Tokens())
    yield opened
    opened.engine.dispose()
