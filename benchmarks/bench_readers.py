"""Whether 200 readers at once read fast, and nothing that they read, and no cent, is lost or counted twice.

.venv/bin/python benchmarks/bench_readers.py --store postgresql --readers 200 --seconds 60 --tasks 10000

Starts `scanloop label serve` on a new store (SQLite in a file, or a PostgreSQL of its own, as durable as by default)
and readers in this process, all on one machine. They log in at once and from one address, take their first three tasks
within the time that an image takes them, and then do what the page does: answer, progress, next task and its image; one
answer in fifty is taken back and given again. A tenth of the tasks wants two readings. `--think 2 3` is how many
seconds each of them looks at an image, `--think 0 0` measures the throughput. `--budget-eur` is what may be spent;
below what they would read it runs out. The database is audited while they read, once a second, and afterwards.
"""

import argparse
import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from argon2 import PasswordHasher
from simulated_readers import PASSWORD, Measured, read_all
from sqlalchemy import func, insert, select

from scanloop.archive.decode import encode_png
from scanloop.archive.shards import ShardWriter
from scanloop.artifacts import KINDS, write_json, write_table
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.readers import add_reader
from scanloop.labelling.schema import Lease, Password, Reading, Task, Wave
from scanloop.labelling.schema import Reader as Person
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import publish

CLASSES, PRICE_EUR, IMAGES, SIZE_PX = ["normal", "pneumonia"], 0.55, 200, 224


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """Address of a database on a PostgreSQL server of this benchmark's own, as durable as PostgreSQL is by default."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    binaries = found[-1] if found else Path(shutil.which("initdb") or sys.exit("install postgresql first")).parent
    folder, port = Path(tempfile.mkdtemp(prefix="scanloop-bench-", dir="/var/tmp")), free_port()
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(binaries / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    run("initdb", "-A", "trust", "-U", "scanloop")
    run(
        "pg_ctl", "-l", str(folder / "log"), "-o", f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}", "-w", "start"
    )
    try:
        yield f"postgresql://scanloop@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def write_catalog(folder: Path, ids: list[str]) -> Path:
    """A catalog of these slices, whose images are some that are used again and again."""
    catalog, draw = folder / "catalog", np.random.default_rng(0)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] / SIZE_PX
    writer = ShardWriter(catalog, IMAGES)
    places = []
    for number in range(IMAGES):
        rings = np.hypot(x - draw.uniform(0.3, 0.7), y - draw.uniform(0.3, 0.7)) * draw.uniform(20, 50)
        pixels = 90 + 60 * np.sin(rings) + draw.normal(0, 8, rings.shape)
        places.append(writer.add(f"png-{number}", encode_png(pixels.clip(0, 255).astype(np.uint8))))
    writer.close()
    rows = pd.DataFrame({"slice_id": ids}).assign(label=None, patient_id="p", split="train", label_source=None)
    for column in ("shard", "offset", "length"):
        rows[column] = [getattr(places[number % IMAGES], column) for number in range(len(ids))]
    write_table(catalog, "manifest", rows)
    write_json(catalog / "catalog.json", {"classes": CLASSES, "data_digest": "d" * 64})
    for name in KINDS["catalog"]:
        if not (catalog / name).exists():
            (catalog / name).write_text("")
    return catalog


def fill(store: Store, folder: Path, names: list[str], tasks: int, budget_eur: float) -> Path:
    """Publish a queue and add the readers; the catalog."""
    ids = [f"slice-{number:06d}" for number in range(tasks)]
    catalog, queue = write_catalog(folder, ids), folder / "queue"
    rows = pd.DataFrame({"slice_id": ids, "rank": range(1, tasks + 1), "price": PRICE_EUR, "reason": "uncertain"})
    write_table(queue, "queue.parquet", rows.assign(purpose="train"))
    write_json(queue / "queue.json", {"price_per_label_eur": PRICE_EUR, "budget_eur": budget_eur})
    write_json(queue / "artifact.json", {"key": "bench"})
    publish(store, queue, catalog, policy=DoubleReading("share", share=0.1))
    hashed = PasswordHasher().hash(PASSWORD)
    for name in names:
        number = add_reader(store, name)
        with store.writing() as (session, at):
            session.execute(insert(Password).values(reader_id=number, hash=hashed, set_at=at))
    return catalog


@contextmanager
def served(address: str, catalog: Path, folder: Path, settings: str) -> Iterator[tuple[str, int]]:
    """Address and process of a running page."""
    port, file = free_port(), folder / "page.yaml"
    file.write_text(settings)
    command = [sys.executable, "-c", "from scanloop.cli import main; main()", "label", "serve", "--plain-http"]
    options = ["--store", address, "--catalog", str(catalog), "--port", str(port), "--settings", str(file)]
    server = subprocess.Popen([*command, *options])
    base = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{base}/readyz", timeout=5).close()  # noqa: S310  our own address
                break
            except OSError:
                time.sleep(0.1)
        yield base, server.pid
    finally:
        server.terminate()
        server.wait(30)


def processor_seconds(process: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def books(store: Store) -> tuple[int, int, int, int]:
    """Cents that are allowed, committed, paid and held, all at one moment."""
    with store.reading() as session:
        wave = session.execute(select(Wave.budget_cents, Wave.committed_cents, Wave.price_cents)).one()
        paid = session.scalar(select(func.sum(Reading.paid_cents))) or 0
        held = session.scalar(select(func.count()).select_from(Lease)) or 0
        return wave.budget_cents, wave.committed_cents, int(paid), held * wave.price_cents


@contextmanager
def watched(store: Store) -> Iterator[list[tuple[int, int, int, int]]]:
    """The books, once a second."""
    seen: list[tuple[int, int, int, int]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            seen.append(books(store))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
        seen.append(books(store))


def audit(store: Store, measured: Measured, seen: list[tuple[int, int, int, int]]) -> dict[str, Any]:
    """What is right, by name, and the rows that say so."""
    with store.reading() as session:
        query = select(Reading.token, Reading.task_id, Person.name, Reading.answer).join(
            Person, Person.id == Reading.reader_id
        )
        rows = {row[0]: tuple(row[1:]) for row in session.execute(query.where(Reading.token.is_not(None)))}
        stands = [(row.task_id, row.reader_id) for row in session.execute(standing())]
        wanted = {number: most for number, most in session.execute(select(Task.id, Task.wanted))}  # noqa: C416  a result is no mapping
    times = Counter(task for task, _ in stands)
    budget, committed, paid, held = seen[-1]
    return {
        "readings": len(rows), "standing": len(stands), "tasks_read": len(times), "looks_at_the_books": len(seen),
        "budget_cents": budget, "paid_cents": paid, "held_cents": held,
        "every_acknowledged_answer_is_a_row": measured.acknowledged.items() <= rows.items(),
        "every_row_was_acknowledged": rows.items() <= measured.acknowledged.items(),
        "no_task_is_read_more_often_than_wanted": all(times[task] <= wanted[task] for task in times)
        and len(set(stands)) == len(stands),
        "no_task_was_in_more_hands_than_wanted": all(len(who) <= wanted[task] for task, who in measured.hands.items()),
        "never_over_the_budget": all(one[1] <= one[0] for one in seen),
        "committed_is_paid_and_held": all(one[1] == one[2] + one[3] for one in seen) and committed == paid + held,
    }  # fmt: skip


def spread(seconds: list[float]) -> dict[str, float]:
    """Count, and milliseconds that 50, 95 and 99 of 100 requests took at most."""
    points = np.percentile(1000 * np.array(seconds), (50, 95, 99))
    return {"n": len(seconds)} | {f"p{at}_ms": round(value, 1) for at, value in zip((50, 95, 99), points, strict=True)}


def main() -> None:
    """Print a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--think", type=float, nargs=2, default=(2.0, 3.0), help="least and most seconds an image")
    parser.add_argument("--budget-eur", type=float, default=100_000)
    parser.add_argument("--settings", default="", help="YAML of the page's settings")
    options = parser.parse_args()
    names = [f"reader {number}" for number in range(options.readers)]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        folder = Path(made)
        database = postgres() if options.store == "postgresql" else nullcontext(f"sqlite:///{folder / 'labels.db'}")
        with database as address:
            store = open_store(address)
            catalog = fill(store, folder, names, options.tasks, options.budget_eur)
            with served(address, catalog, folder, options.settings) as (base, process), watched(store) as seen:
                reading = read_all(base, names, options.seconds, tuple(options.think), 0.02)
                measured, took = asyncio.run(reading)
                used = processor_seconds(process)
            verdicts = audit(store, measured, seen)
            store.engine.dispose()
    people = {"login", "login page", "page"}
    while_reading = {name: one for name, one in measured.seconds.items() if name not in people}
    every = [one for several in while_reading.values() for one in several]
    result = {
        "store": options.store, "readers": options.readers, "think_seconds": options.think, "tasks": options.tasks,
        "load_before": round(load, 2), **{name: round(value, 1) for name, value in took.items()},
        "server_processor_seconds": round(used, 1), "requests_a_second": round(len(every) / took["reading_seconds"], 1),
        "answers_a_second": round(len(measured.acknowledged) / took["reading_seconds"], 1),
        "all": spread(every), "endpoints": {name: spread(one) for name, one in sorted(measured.seconds.items())},
        "codes": dict(measured.codes), "ended": dict(measured.ended), **verdicts,
    }  # fmt: skip
    print(json.dumps(result))
    if faults := [name for name, value in verdicts.items() if value is False]:
        sys.exit(f"wrong: {', '.join(faults)}")


if __name__ == "__main__":
    main()
