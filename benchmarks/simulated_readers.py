"""Readers who ask for what the clinicians' page asks for, cheaply: 200 share two cores with a server."""

import asyncio
import json
import random
import re
import secrets
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PASSWORD = secrets.token_hex(16)
HAND, PROGRESS_SECONDS = 3, 1.5
"""As in the page: tasks that it holds, and how often it asks how far the wave is."""


@dataclass
class Measured:
    """What the readers saw.

    Attributes:
        seconds: How long each request took, from its first byte out to its last byte in, by endpoint.
        codes: How often each code other than 200, 204 and 303 was answered, by endpoint.
        acknowledged: Token of each answer that the server said is saved, with its task, reader and answer.
        hands: Readers whom each task was handed out to.
        ended: Why readers got no further task, and how many.
        is_on: Whether time counts: not while people log in.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    codes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    acknowledged: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    hands: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    is_on: bool = False


class Reader:
    """One reader at one browser.

    Args:
        name: Who.
        http: What all of them send by.
        measured: Where it is written down.
        think_seconds: Least and most time from an image to its answer.
        undone: Share of answers that are taken back and given again.
    """

    def __init__(
        self, name: str, http: aiohttp.ClientSession, measured: Measured, think_seconds: tuple[float, float],
        undone: float,
    ) -> None:  # fmt: skip
        self._name, self._http, self._measured = name, http, measured
        self._think, self._undone = think_seconds, undone
        self._draw = random.Random(name)  # noqa: S311  when somebody looks up is no secret
        self._headers = {"Sec-Fetch-Site": "same-origin"}
        self._hand: list[dict[str, Any]] = []
        self._asked = 0.0

    async def log_in(self) -> None:
        """Get a session and its token, however often the page says to wait."""
        await self._ask("GET", "login page", "/login")
        form = {"name": self._name, "password": PASSWORD}
        while True:
            code, answer, _ = await self._ask("POST", "login", "/login", data=form)
            if code != 429:
                break
            await asyncio.sleep(int(answer["Retry-After"]))
        self._headers["Cookie"] = answer["Set-Cookie"].partition(";")[0]
        _, _, page = await self._ask("GET", "page", "/")
        found = re.search(rb'data-csrf="(\w+)"', page)
        if code != 303 or not found:
            raise SystemExit(f"{self._name} cannot log in: {code}")
        self._headers["X-CSRF-Token"] = found[1].decode()

    async def begin(self) -> None:
        """Take the first tasks, at some moment within the time that an image takes."""
        await asyncio.sleep(self._draw.uniform(0, self._think[1]))
        await self._fill()

    async def read(self, until: float) -> None:
        """Read until a time of the loop's clock."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._draw.uniform(0, self._think[0]))
        while clock() < until and self._hand:
            think = self._draw.uniform(*self._think)
            if clock() + think >= until:
                return
            await asyncio.sleep(think)
            task = self._hand.pop(0)
            await self._answer(task)
            if self._draw.random() < self._undone:
                _, _, again = await self._post("undo", f"/api/tasks/{task['task']}/withdraw")
                await self._answer(again)
            await asyncio.gather(self._progress(), self._fill())

    async def _answer(self, task: dict[str, Any]) -> None:
        given = self._draw.choice(task["classes"])
        told = {"answer": given, "token": task["token"]}
        code, _, _ = await self._post("answer", f"/api/tasks/{task['task']}/answer", told)
        if code == 200:
            self._measured.acknowledged[task["token"]] = (task["task"], self._name, given)

    async def _fill(self) -> None:
        while len(self._hand) < HAND:
            beside = {"beside": [one["task"] for one in self._hand]}
            code, _, answer = await self._post("next", "/api/tasks/next", beside)
            if code != 200:
                return
            if answer["task"] is None:
                self._measured.ended[answer["none"]["why"]] += 1
                return
            self._measured.hands[answer["task"]["task"]].add(self._name)
            self._hand.append(answer["task"])
            await self._ask("GET", "image", f"/images/{answer['task']['task']}")

    async def _progress(self) -> None:
        if time.monotonic() - self._asked >= PROGRESS_SECONDS:
            self._asked = time.monotonic()
            await self._ask("GET", "progress", "/api/progress")

    async def _post(self, what: str, path: str, sent: object = None) -> tuple[int, Any, Any]:
        code, headers, body = await self._ask("POST", what, path, json=sent)
        return code, headers, json.loads(body) if code == 200 else None

    async def _ask(self, method: str, what: str, path: str, **sent: Any) -> tuple[int, Any, bytes]:
        began = time.perf_counter()
        async with self._http.request(method, path, headers=self._headers, allow_redirects=False, **sent) as answer:
            body = await answer.read()
        if self._measured.is_on or what in ("login", "login page", "page"):
            self._measured.seconds[what].append(time.perf_counter() - began)
        if answer.status not in (200, 204, 303):
            self._measured.codes[f"{what} {answer.status}"] += 1
        return answer.status, answer.headers, body


async def read_all(
    base: str, names: list[str], seconds: float, think_seconds: tuple[float, float], undone: float
) -> tuple[Measured, dict[str, float]]:
    """Let readers log in, all at once, and read; what they saw, and how long each part took.

    Args:
        base: Address of the page.
        names: Of the readers, whose password is `PASSWORD`.
        seconds: How long they read.
        think_seconds: Least and most time from an image to its answer.
        undone: Share of answers that are taken back and given again.
    """
    measured = Measured()
    patience = aiohttp.ClientTimeout(total=120)
    browsers = aiohttp.TCPConnector(limit=0)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(base, connector=browsers, cookie_jar=jar, timeout=patience) as http:
        readers = [Reader(name, http, measured, think_seconds, undone) for name in names]
        began = time.perf_counter()
        await asyncio.gather(*(reader.log_in() for reader in readers))
        logged_in = time.perf_counter()
        await asyncio.gather(*(reader.begin() for reader in readers))
        first = time.perf_counter()
        measured.is_on = True
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(reader.read(until) for reader in readers))
        ended = time.perf_counter()
    return measured, {
        "log_in_seconds": logged_in - began,
        "first_tasks_seconds": first - logged_in,
        "reading_seconds": ended - first,
    }
