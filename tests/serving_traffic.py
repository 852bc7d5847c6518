"""Traffic for a server: clients who wait for answers, and ones who do not; each outcome is kept."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
from served import V1, v1

REFUSED, LOST = -1, -2
"""No connection, and a connection that ended before a whole answer, in the place of a status."""


@dataclass
class Outcome:
    """One request: which image, when it was sent, how long it took, what came back."""

    image: int
    sent_at: float
    seconds: float
    status: int
    retry_after: str | None = None
    body: bytes = b""

    @property
    def prediction(self) -> dict[str, object]:
        return json.loads(self.body)["predictions"][0]


@dataclass
class Traffic:
    """Requests to one server.

    Args:
        url: Its address.
        files: Images, asked for by turns.
    """

    url: str
    files: Sequence[bytes]
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bodies = [json.dumps(v1(file)).encode() for file in self.files]
        self._turns = itertools.cycle(range(len(self.files)))

    async def one(self, session: aiohttp.ClientSession) -> Outcome:
        image, began = next(self._turns), time.monotonic()
        outcome = Outcome(image, began, 0, LOST)
        self.outcomes.append(outcome)
        try:
            async with session.post(self.url + V1, data=self._bodies[image], headers=JSON) as answer:
                outcome.body = await answer.read()
                outcome.status, outcome.retry_after = answer.status, answer.headers.get("retry-after")
        except aiohttp.ClientConnectorError:
            outcome.status = REFUSED
        except (aiohttp.ClientError, OSError):
            outcome.status = LOST
        outcome.seconds = time.monotonic() - began
        return outcome

    def waiting(self, clients: int, seconds: float, until: Callable[[], bool] = lambda: False) -> list[Outcome]:
        """Clients who ask again once they are answered, for so long or until something has happened."""

        async def client(session: aiohttp.ClientSession, end: float) -> None:
            while time.monotonic() < end and not until():
                await self.one(session)

        async def run() -> None:
            end = time.monotonic() + seconds
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await asyncio.gather(*(client(session, end) for _ in range(clients)))

        return self._collect(run())

    def arriving(self, rate: float, seconds: float) -> list[Outcome]:
        """Requests that arrive so many a second, by chance, whether or not those before them are answered."""

        async def run() -> None:
            draw, began, at = np.random.default_rng(0), time.monotonic(), 0.0
            tasks: set[asyncio.Task[Outcome]] = set()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                while at < seconds:
                    await asyncio.sleep(max(0, began + at - time.monotonic()))
                    task = asyncio.create_task(self.one(session))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    at += draw.exponential(1 / rate)
                await asyncio.gather(*tasks)

        return self._collect(run())

    def _collect(self, run: "asyncio.Future[None] | object") -> list[Outcome]:
        before = len(self.outcomes)
        asyncio.run(run)  # type: ignore[arg-type]
        return self.outcomes[before:]


JSON = {"content-type": "application/json"}


def median_ms(outcomes: Sequence[Outcome]) -> float:
    """Of those that were answered."""
    return float(np.median([one.seconds for one in outcomes if one.status == 200])) * 1e3


def resident_mib(pid: int) -> float:
    """Memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
