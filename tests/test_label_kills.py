"""The page's server killed with `kill -9` while people read: what it said is saved is saved, once, and paid once."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from label_pages import PASSWORD, write_page_catalog
from label_stores import CLASSES, check_books, enrol, slice_ids, write_queue
from sqlalchemy import func, select

from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.passwords import set_password
from scanloop.labelling.reading import Handed, next_task, release
from scanloop.labelling.schema import Lease, Reader, Reading, Wave
from scanloop.labelling.store import open_store, utc_now
from scanloop.labelling.waves import publish

READERS = [f"reader {number}" for number in range(4)]
FORGE = """
import os, sys
import alembic.command, uvicorn, scanloop.labelling.app.application, scanloop.labelling.postgres
from scanloop.cli import main
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it says where it listens; that is the parent's line
        main()
    print(child, flush=True)
    os.waitpid(child, 0)
"""
"""Starts `scanloop label serve` again and again without the seconds that its imports take."""


@dataclass
class Server:
    """A page's server that is started again at the same port."""

    forge: "subprocess.Popen[str]"
    base: str
    process: int = 0

    def start(self) -> None:
        assert self.forge.stdin
        assert self.forge.stdout
        print("start", file=self.forge.stdin, flush=True)
        self.process = int(self.forge.stdout.readline())

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)


@dataclass
class Hand:
    """Somebody who reads on whatever happens, and sends again what was not answered, as the page does."""

    name: str
    base: str
    stop: threading.Event
    acknowledged: list[tuple[int, str, str, str]] = field(default_factory=list)
    fault: str = ""
    sent_again: int = 0

    def run(self) -> None:
        with httpx.Client(base_url=self.base, timeout=20, trust_env=False) as self.http:
            try:
                self._log_in()
                while not self.stop.is_set():
                    self._read_one(random.Random(f"{self.name} {len(self.acknowledged)}"))
            except Exception as error:
                self.fault = repr(error)

    def _log_in(self) -> None:
        logged_in = self.http.post("/login", data={"name": self.name, "password": PASSWORD})
        self.http.cookies.set("session", logged_in.cookies["session"])
        self.csrf = re.findall(r'data-csrf="(\w+)"', self.http.get("/").text)[0]

    def _post(self, path: str, body: object = None) -> dict:  # type: ignore[type-arg]
        while True:
            try:
                answer = self.http.post(path, json=body, headers={"X-CSRF-Token": self.csrf})
            except httpx.TransportError:
                self.sent_again += 1
                time.sleep(0.01)
                continue
            assert answer.status_code == 200, (path, answer.status_code, answer.text)
            return answer.json()  # type: ignore[no-any-return]

    def _read_one(self, draw: random.Random) -> None:
        task = self._post("/api/tasks/next", {"beside": []})["task"]
        self._answer(task, draw.choice(CLASSES))
        if draw.random() < 0.2:
            self._answer(self._post(f"/api/tasks/{task['task']}/withdraw"), draw.choice(CLASSES))

    def _answer(self, task: dict, given: str) -> None:  # type: ignore[type-arg]
        self._post(f"/api/tasks/{task['task']}/answer", {"answer": given, "token": task["token"]})
        self.acknowledged.append((task["task"], self.name, given, task["token"]))


@pytest.fixture
def server(address: str, tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet, over a wave of many images and with people who have passwords."""
    store, ids = open_store(address), slice_ids(20_000)
    catalog = write_page_catalog(tmp_path, ids)
    publish(store, write_queue(tmp_path, ids, budget=100_000), catalog, policy=DoubleReading("share", share=0.3))
    enrol(store, *READERS, "late")
    for name in READERS:
        set_password(store, name, PASSWORD)
    store.engine.dispose()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--store", address, "--catalog", str(catalog), "--port", str(port), "--plain-http"]
    (tmp_path / "page.yaml").write_text("requests_a_minute: 100000\n")
    command = [sys.executable, "-c", FORGE, "label", "serve", *options, "--settings", str(tmp_path / "page.yaml")]
    forge = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    made = Server(forge, f"http://127.0.0.1:{port}")
    yield made
    if made.process:
        made.kill()
    forge.stdin.close()  # type: ignore[union-attr]
    forge.wait(20)


def wait_for(base: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            httpx.get(f"{base}/readyz", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server does not start")


def read_through_kills(server: Server, kills: int, seed: int) -> list[Hand]:
    """Let people read while the server is killed so many times at drawn instants, and a moment longer."""
    draw, stop = random.Random(seed), threading.Event()
    hands = [Hand(name, server.base, stop) for name in READERS]
    threads = [threading.Thread(target=hand.run) for hand in hands]
    server.start()
    wait_for(server.base)
    for thread in threads:
        thread.start()
    while not all(hand.acknowledged or hand.fault for hand in hands):
        time.sleep(0.01)
    for _ in range(kills):
        known = sum(len(hand.acknowledged) for hand in hands)
        while sum(len(hand.acknowledged) for hand in hands) == known and not any(hand.fault for hand in hands):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.2))
        server.kill()
        server.start()
    wait_for(server.base)
    stop.set()
    for thread in threads:
        thread.join()
    return hands


@pytest.mark.parametrize("kills", [
    5, pytest.param(int(os.environ.get("SCANLOOP_KILLS", "30")), marks=pytest.mark.integration),
])  # fmt: skip
def test_a_server_that_is_killed_at_any_instant_loses_no_reading_that_it_acknowledged(
    server: Server, address: str, kills: int
) -> None:
    hands = read_through_kills(server, kills, seed=kills)
    assert [hand.fault for hand in hands] == [""] * len(hands)
    assert sum(hand.sent_again for hand in hands) >= kills, "the kills came between"
    acknowledged = [one for hand in hands for one in hand.acknowledged]
    store = open_store(address, clock=lambda: utc_now() + timedelta(minutes=16))
    with store.reading() as session:
        columns = (Reading.task_id, Reader.name, Reading.answer, Reading.token)
        query = select(*columns).join(Reader, Reader.id == Reading.reader_id).where(Reading.answer.is_not(None))
        written = sorted(tuple(row) for row in session.execute(query))
    assert written == sorted(acknowledged), "each is there once, and nothing that nobody was told of"
    assert len(acknowledged) > kills
    check_books(address)
    last = next_task(store, "late")
    assert isinstance(last, Handed)
    release(store, "late", last.task)
    with store.reading() as session:
        assert session.scalars(select(Lease)).all() == [], "what was in hands is back after its lease"
        paid = session.scalar(select(func.sum(Reading.paid_cents)))
        assert session.scalar(select(Wave.committed_cents)) == paid
    store.engine.dispose()
    check_books(address)
