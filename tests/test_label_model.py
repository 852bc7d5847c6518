"""The store against a plain model of it in Python: any sequence of readers' deeds, answered alike by both."""

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from label_stores import CLASSES, START, Clock, Tokens, enrol, publish_images, slice_ids
from sqlalchemy import select

from scanloop.artifacts import read_table
from scanloop.errors import LabellingError
from scanloop.labelling.adjudication import adjudicate, disputes
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.export import export, labels_as_of
from scanloop.labelling.reading import LEASE, MOST_HELD, Handed, answer, next_task, release, withdraw
from scanloop.labelling.schema import Lease, Task, Wave
from scanloop.labelling.store import open_store

IMAGES, PRICE, BUDGET = 5, 55, 330
READERS = ("anna", "ben", "cleo")
GIVEN = (*CLASSES, "unsure", "bad image")
MODEL = dict(zip(slice_ids(IMAGES), ("normal", "pneumonia", "normal", "pneumonia", "normal"), strict=True))


@dataclass
class Model:
    """What the store should do, said with lists: every deed with its time, and who holds what."""

    policy: DoubleReading
    log: list[tuple[datetime, str, int, str, str]] = field(default_factory=list)  # when, what, task, who, answer
    held: dict[tuple[int, str], datetime] = field(default_factory=dict)

    def standing(self, task: int, as_of: datetime | None = None) -> dict[str, str]:
        """Answers by reader, in the order of reading."""
        found: dict[str, str] = {}
        for at, what, number, who, given in self.log:
            if number == task and (as_of is None or at <= as_of):
                if what == "answer":
                    found[who] = given
                elif what == "withdraw":
                    del found[who]
        return found

    def wanted(self, task: int, as_of: datetime | None = None) -> int:
        name = slice_ids(IMAGES)[task - 1]
        return self.policy.wanted(self.policy.at_first(name), MODEL[name], list(self.standing(task, as_of).values()))

    def decision(self, task: int, as_of: datetime | None = None) -> str | None:
        made = [one[4] for one in self.log if one[1:3] == ("decide", task) and (as_of is None or one[0] <= as_of)]
        return made[-1] if made else None

    def spent(self) -> int:
        return PRICE * (len(self.held) + sum(len(self.standing(task)) for task in range(1, IMAGES + 1)))

    def expire(self, now: datetime) -> None:
        self.held = {key: until for key, until in self.held.items() if until > now}

    def next(self, who: str, beside: set[int], now: datetime) -> int | str:
        """The task, or why there is none."""
        self.expire(now)
        mine = [task for task, reader in self.held if reader == who]
        if again := [task for task in mine if task not in beside]:
            self.held[again[0], who] = now + LEASE
            return again[0]
        if len(mine) >= MOST_HELD:
            return "holding"
        for task in range(1, IMAGES + 1):
            others = sum(number == task for number, _ in self.held)
            touched = any(
                number == task and reader == who and what == "answer" for _, what, number, reader, _ in self.log
            )
            if not touched and task not in mine and len(self.standing(task)) + others < self.wanted(task):
                if self.spent() + PRICE > BUDGET:
                    return "budget"
                self.held[task, who] = now + LEASE
                return task
        return "all_read"

    def disputed(self, task: int, as_of: datetime | None = None) -> bool:
        answers = list(self.standing(task, as_of).values())
        is_open = self.decision(task, as_of) is None
        return is_open and len(answers) >= self.wanted(task, as_of) and len({*answers}) > 1

    def labels(self, as_of: datetime) -> list[tuple[str, str | None, int, float]]:
        rows = []
        for task in range(1, IMAGES + 1):
            answers = list(self.standing(task, as_of).values())
            if answers and len(answers) >= self.wanted(task, as_of) and not self.disputed(task, as_of):
                counts = self.decision(task, as_of) or answers[0]
                label = counts if counts in CLASSES else None
                rows.append((slice_ids(IMAGES)[task - 1], label, len(answers), answers.count(counts) / len(answers)))
        return rows


policies = st.sampled_from([
    DoubleReading(), DoubleReading("all"), DoubleReading("all", readings=3), DoubleReading("share", share=0.5),
    DoubleReading("disagreement"),
])  # fmt: skip


class ReadingRoom(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.store = open_store(f"sqlite:///{self.folder / 'labels.db'}", clock=self.clock, new_token=Tokens())
        self.tokens: dict[tuple[int, str], str] = {}
        self.known: dict[datetime, list[tuple[str, str | None, int, float]]] = {}

    @initialize(policy=policies)
    def publish(self, policy: DoubleReading) -> None:
        enrol(self.store, *READERS)
        enrol(self.store, "ada", role="adjudicator")
        labels = {"policy": policy, "model_labels": MODEL}
        publish_images(self.store, self.folder, IMAGES, budget=BUDGET / 100, **labels)
        self.model = Model(policy)

    def now(self) -> datetime:
        return self.clock.move(seconds=1)

    @rule(who=st.sampled_from(READERS), ahead=st.booleans())
    def ask(self, who: str, ahead: bool) -> None:
        now = self.now()
        beside = {task for (task, reader), until in self.model.held.items() if reader == who} if ahead else set()
        found = next_task(self.store, who, beside=beside)
        expected = self.model.next(who, beside, now)
        assert (found.task if isinstance(found, Handed) else found.why) == expected
        if isinstance(found, Handed):
            self.tokens[found.task, who] = found.token

    @rule(who=st.sampled_from(READERS), given=st.sampled_from(GIVEN))
    def read(self, who: str, given: str) -> None:
        self.ask(who, ahead=False)
        if mine := [number for number, key in enumerate(sorted(self.tokens)) if key[1] == who]:
            self.answer(mine[0], given, twice=False)

    @rule(pick=st.integers(0, 99), given=st.sampled_from(GIVEN), twice=st.booleans())
    def answer(self, pick: int, given: str, twice: bool) -> None:
        if not self.tokens:
            return
        (task, who), token = sorted(self.tokens.items())[pick % len(self.tokens)]
        now = self.now()
        if self.model.held.get((task, who), START) > now:
            for _ in range(1 + twice):
                assert answer(self.store, who, task, given, token).at == now
            del self.model.held[task, who]
            self.model.log.append((now, "answer", task, who, given))
        else:
            self.refused(lambda: answer(self.store, who, task, given, token))
        del self.tokens[task, who]

    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick: int) -> None:
        read = [(task, who) for task in range(1, IMAGES + 1) for who in self.model.standing(task)]
        others = [(task, who) for task in (1, IMAGES) for who in READERS]
        task, who = (read or others)[pick % len(read or others)] if pick % 4 else others[pick % len(others)]
        now = self.now()
        held = self.model.held.get((task, who), START) > now
        if who not in self.model.standing(task):
            if held:
                assert withdraw(self.store, who, task).token == self.tokens[task, who]
            else:
                self.refused(lambda: withdraw(self.store, who, task))
        elif self.model.decision(task) is not None:
            self.refused(lambda: withdraw(self.store, who, task))
        else:
            self.tokens[task, who] = withdraw(self.store, who, task).token
            self.model.log.append((now, "withdraw", task, who, ""))
            self.model.held[task, who] = now + LEASE

    @rule(who=st.sampled_from(READERS), task=st.integers(1, IMAGES))
    def release(self, who: str, task: int) -> None:
        self.now()
        release(self.store, who, task)
        self.model.held.pop((task, who), None)
        self.tokens.pop((task, who), None)

    @rule(pick=st.integers(0, 99), given=st.sampled_from(GIVEN))
    def decide(self, pick: int, given: str) -> None:
        tasks = [*range(1, IMAGES + 1)]
        waiting = [task for task in tasks if self.model.disputed(task)] or tasks
        task, now = waiting[pick % len(waiting)], self.now()
        if self.model.disputed(task) or self.model.decision(task) is not None:
            known = self.model.decision(task) == given
            if adjudicate(self.store, "ada", task, given).at == now:
                assert not known
                self.model.log.append((now, "decide", task, "ada", given))
        else:
            self.refused(lambda: adjudicate(self.store, "ada", task, given))

    @rule(minutes=st.sampled_from([1, 10, 16]))
    def wait(self, minutes: int) -> None:
        self.clock.move(minutes=minutes)

    @rule()
    def export(self) -> None:
        now = self.now()
        export(self.store, self.folder / "labels", now)
        table = read_table(self.folder / "labels", "labels.parquet")
        assert table["label"].tolist() == [label for _, label, _, _ in self.model.labels(now)]

    def refused(self, deed: object) -> None:
        try:
            deed()  # type: ignore[operator]
        except LabellingError:
            return
        raise AssertionError("this should have been refused")

    def rows(self, as_of: datetime) -> list[tuple[str, str | None, int, float]]:
        with self.store.reading() as session:
            table, _ = labels_as_of(session, as_of)
        return list(table[["slice_id", "label", "readers", "agreement"]].itertuples(index=False, name=None))

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        with self.store.reading() as session:
            committed = session.scalars(select(Wave.committed_cents)).one()
            held = {(task, until) for task, until in session.execute(select(Lease.task_id, Lease.expires_at)).tuples()}
            disputed = {task.id for task in session.scalars(select(Task)) if task.disputed}
        assert held == {(task, until) for (task, _), until in self.model.held.items()}
        assert committed == self.model.spent() <= BUDGET
        assert disputed == {task for task in range(1, IMAGES + 1) if self.model.disputed(task)}
        self.known[self.clock.now] = self.model.labels(self.clock.now)
        assert self.rows(self.clock.now) == self.known[self.clock.now]

    def teardown(self) -> None:
        if hasattr(self, "model"):
            assert {one.task for one in disputes(self.store, "ada")} == {
                task for task in range(1, IMAGES + 1) if self.model.disputed(task)
            }
            for as_of, rows in self.known.items():
                assert self.rows(as_of) == rows == self.model.labels(as_of), "what was known then has changed"
        self.store.engine.dispose()
        shutil.rmtree(self.folder)


TestReadingRoom = ReadingRoom.TestCase
TestReadingRoom.settings = settings(
    max_examples=12, stateful_step_count=35, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
