"""Pages to test: catalogs with drawn images, a store with a wave, and clients that log in as people do."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from label_stores import CLASSES, Clock, slice_ids, write_queue
from sqlalchemy import insert, select, update
from starlette.testclient import TestClient

from scanloop.archive.decode import encode_png
from scanloop.archive.shards import ShardWriter
from scanloop.artifacts import KINDS, write_json, write_table
from scanloop.labelling.app.application import make_app
from scanloop.labelling.app.settings import PageSettings
from scanloop.labelling.readers import add_reader
from scanloop.labelling.schema import Event, Password, Task
from scanloop.labelling.sessions import Lifetime, sign_in
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import publish
from scanloop.types import Image

PASSWORD = " ".join(("correct", "horse", "battery"))
PATIENT = "patient-4711"
LABELLED = [f"known-{number:02d}" for number in range(8)]
"""Labelled training images: four of each class, the first ones of which are everyone's neighbours."""


def drawn(number: int, size_px: int = 96) -> Image:
    """An image that is like no other: rings around a place of its own."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[:size_px, :size_px] / size_px
    rings = np.hypot(x - draw.uniform(0.3, 0.7), y - draw.uniform(0.3, 0.7)) * draw.uniform(20, 50)
    return (90 + 60 * np.sin(rings) + draw.normal(0, 8, rings.shape)).clip(0, 255).astype(np.uint8)


def write_page_catalog(folder: Path, ids: list[str], *, images: list[bytes] | None = None) -> Path:
    """A catalog of these slices and some labelled ones; pictures are used again where there are fewer than slices."""
    catalog = folder / "catalog"
    pngs = images or [encode_png(drawn(number)) for number in range(min(40, len(ids) + len(LABELLED)))]
    writer = ShardWriter(catalog, len(pngs))
    places = [writer.add(f"png-{number}", png) for number, png in enumerate(pngs)]
    writer.close()
    rows = pd.DataFrame({"slice_id": [*LABELLED, *ids]})
    known = len(LABELLED)
    rows["label"] = [CLASSES[number % 2] for number in range(known)] + [None] * len(ids)
    rows = rows.assign(patient_id=PATIENT, split="train", label_source=None)
    for column in ("shard", "offset", "length"):
        rows[column] = [getattr(places[number % len(places)], column) for number in range(len(rows))]
    write_table(catalog, "manifest", rows)
    write_json(catalog / "catalog.json", {"classes": CLASSES, "data_digest": "d" * 64})
    for name in KINDS["catalog"]:
        if not (catalog / name).exists():
            (catalog / name).write_text("")
    return catalog


@dataclass
class Site:
    """A page with its store, clock and people."""

    app: FastAPI
    store: Store
    clock: Clock
    catalog: Path

    def browser(self, **options: object) -> TestClient:
        """Somebody's browser, not logged in."""
        return TestClient(self.app, base_url="http://127.0.0.1:8080", follow_redirects=False, **options)  # type: ignore[arg-type]

    def enter(self, name: str) -> "Person":
        """Somebody with a session, without the time that a password takes."""
        browser = self.browser()
        browser.cookies.set("session", sign_in(self.store, name, Lifetime(), how="password", address="test"))
        return Person(name, browser)

    def events(self, kind: str) -> list[Event]:
        """What the audit trail holds of a kind, in order."""
        with self.store.reading() as session:
            found = session.scalars(select(Event).where(Event.kind == kind).order_by(Event.id)).all()
            session.expunge_all()
            return list(found)


@dataclass
class Person:
    """Somebody who is logged in."""

    name: str
    browser: TestClient

    @cached_property
    def csrf(self) -> str:
        found = re.search(r'data-csrf="(\w+)"', self.browser.get("/").text)
        assert found
        return found[1]

    def post(self, path: str, json: object = None, **headers: str):  # type: ignore[no-untyped-def]
        return self.browser.post(path, json=json, headers={"X-CSRF-Token": self.csrf} | headers)

    def get(self, path: str):  # type: ignore[no-untyped-def]
        return self.browser.get(path)

    def take(self) -> dict[str, object]:
        """The next task."""
        answer = self.post("/api/tasks/next", {"beside": []}).json()
        assert answer["task"], answer
        return answer["task"]  # type: ignore[no-any-return]

    def read(self, given: str) -> int:
        """Answer the next task, and return its number."""
        task = self.take()
        answer = self.post(f"/api/tasks/{task['task']}/answer", {"answer": given, "token": task["token"]})
        assert answer.status_code == 200, answer.text
        return int(task["task"])  # type: ignore[call-overload]


@dataclass
class SiteMaker:
    """Makes pages in a folder, under a clock that is set by hand."""

    folder: Path
    clock: Clock
    address: str

    def __call__(
        self, images: int = 12, *, budget: float = 1000.0, policy: object = None, ids: list[str] | None = None,
        settings: dict[str, object] | None = None,
    ) -> Site:  # fmt: skip
        store = open_store(self.address, clock=self.clock)
        ids = ids or slice_ids(images)
        catalog = write_page_catalog(self.folder, ids)
        publish(store, write_queue(self.folder, ids, budget=budget), catalog, policy=policy)  # type: ignore[arg-type]
        add_people(store)
        say_what_the_model_says(store)
        about = {"store": "sqlite:///x", "catalogs": [catalog], "secure_cookies": False} | (settings or {})
        return Site(make_app(store, PageSettings.model_validate(about)), store, self.clock, catalog)


def say_what_the_model_says(store: Store) -> None:
    """Give every task probabilities and five alike images."""
    near = [[one, CLASSES[number % 2]] for number, one in enumerate(LABELLED[:5])]
    with store.writing() as (session, _):
        session.execute(update(Task).values(probabilities=[0.125, 0.875], neighbours=near))


def add_people(store: Store) -> None:
    """Anna and Ben read, Ada decides, Carl watches."""
    people = {"anna": "reader", "ben": "reader", "ada": "adjudicator", "carl": "curator"}
    for name, role in people.items():
        number = add_reader(store, name, role)
        with store.writing() as (session, at):
            session.execute(insert(Password).values(reader_id=number, hash=_hashed(), set_at=at))


@cache
def _hashed() -> str:
    return PasswordHasher().hash(PASSWORD)


@pytest.fixture
def make_site(tmp_path: Path, clock: Clock, address: str) -> SiteMaker:
    """Makes a page over an empty database of either kind."""
    return SiteMaker(tmp_path, clock, address)


@pytest.fixture
def site(make_site: SiteMaker) -> Iterator[Site]:
    made = make_site(settings={"logins_a_minute": 1000, "requests_a_minute": 100_000})
    yield made
    made.store.engine.dispose()
