"""TorchServe as one talks to it: its keys, whether a worker really answers, and what its failures mean to a client."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import numpy as np
import orjson

from scanloop.bundle.torchserve import DIGITS, Archived
from scanloop.liveness import process_identity
from serving.rejection import RequestError
from serving.torchserve.process import Keys, TorchServe, seconds_left

logger = logging.getLogger("scanloop.serving")

LOOK_SECONDS, CANARY_SECONDS = 0.5, 10.0
LATER = {"Retry-After": "2"}
HEADER_BYTES = "inference-header-content-length"
BINARY = "application/octet-stream"
"""TorchServe parses a body that calls itself JSON and logs those that are none; ours goes to the handler as it is."""


@dataclass(frozen=True)
class Reply:
    """What TorchServe answered."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def is_refusal(self) -> bool:
        """Whether the handler refused the request; TorchServe's own refusals are no matter of the client's."""
        return self.body.startswith(b'{"error":')


class Backend:
    """Predictions by a TorchServe that says itself healthy when its workers are dead.

    It works once a worker's process lives and a canary was answered since it started. Until then, and after an answer
    that did not come in time, nothing is passed on.

    Args:
        process: TorchServe.
        archived: Its model.
        answer_seconds: For an answer.
        start_seconds: Longest time without a worker; then it counts as broken.
    """

    def __init__(self, process: TorchServe, archived: Archived, answer_seconds: float, start_seconds: float) -> None:
        self._process, self._archived = process, archived
        self._answer_seconds, self._start_seconds = answer_seconds, start_seconds
        self._proven: frozenset[str] = frozenset()
        self._alive: frozenset[str] = frozenset()
        self._keys: Keys | None = None
        self._renew_at = 0.0
        self._renewal = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self.draining = False

    @property
    def works(self) -> bool:
        """Whether a worker lives and has shown that it predicts."""
        return bool(self._proven & self._alive)

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.works and not self.draining

    async def predict(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Pass a prediction on.

        Raises:
            RequestError: 503, with the time to come back: no worker, no answer in time, or a failure of TorchServe's.
        """
        if not self.works:
            raise _unavailable("not_ready", "the model is being loaded, or its worker is being started again")
        try:
            async with asyncio.timeout(self._answer_seconds):
                reply = await self._ask(path, body, headers)
        except TimeoutError as error:
            self._proven = frozenset()
            raise _unavailable("too_late", f"no answer within {self._answer_seconds:g} s") from error
        except aiohttp.ClientError as error:
            self._proven = frozenset()
            logger.warning("TorchServe: %s", error)
            raise _unavailable("backend", "TorchServe ended the connection") from error
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not (reply.status == HTTPStatus.OK or reply.is_refusal):
            logger.warning("TorchServe answered %d: %s", reply.status, reply.body[:300].decode(errors="replace"))
            raise _unavailable("backend", "TorchServe did not answer this request")
        return reply

    async def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        reply = await self._post(path, body, headers)
        if reply.status == HTTPStatus.BAD_REQUEST and not reply.is_refusal:
            # The key was replaced since it was read, perhaps by us; TorchServe writes the new one after it holds.
            async with self._renewal:
                self._keys = self._process.keys() or self._keys
            reply = await self._post(path, body, headers)
        return reply

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        assert self._session is not None
        assert self._keys is not None
        sent = {**headers, "Content-Type": BINARY, "Authorization": f"Bearer {self._keys.inference}"}
        async with self._session.post(self._process.inference + path, data=body, headers=sent) as answer:
            return Reply(answer.status, await answer.read(), answer.headers)

    async def metrics(self) -> bytes:
        """TorchServe's own metrics; nothing while it does not answer."""
        assert self._session is not None
        try:
            async with self._session.get(
                f"{self._process.metrics}/metrics", timeout=aiohttp.ClientTimeout(2)
            ) as answer:
                return await answer.read() if answer.status == HTTPStatus.OK else b""
        except (aiohttp.ClientError, TimeoutError):
            return b""

    async def watch(self) -> None:
        """Look after keys and workers, until TorchServe is beyond help; then return."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as self._session:
            worked = time.monotonic()
            while not self._process.ended():
                try:
                    await self._look()
                except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
                    logger.info("TorchServe does not answer: %s", str(error) or type(error).__name__)
                    self._alive = _living(int(name.partition(":")[0]) for name in self._alive) & self._alive
                if self.works:
                    worked = time.monotonic()
                elif time.monotonic() - worked > self._start_seconds:
                    logger.critical("no worker has predicted for %g s", self._start_seconds)
                    break
                await asyncio.sleep(LOOK_SECONDS)
            else:
                logger.critical("TorchServe has ended")
            self._alive = frozenset()

    async def _look(self) -> None:
        if (keys := self._keys or self._process.keys()) is None:
            return
        if self._keys is None:
            self._take(keys)
        if time.monotonic() > self._renew_at:
            await self._renew(keys)
        before, self._alive = self._alive, await self._workers()
        if self._alive - before and self._proven:
            logger.info("another worker: %s", ", ".join(sorted(self._alive - before)))
        if self._alive - self._proven:
            await self._canary(self._alive)

    def _take(self, keys: Keys) -> None:
        self._keys = keys
        self._renew_at = time.monotonic() + max(1.0, seconds_left(keys) / 2)

    async def _renew(self, keys: Keys) -> None:
        """New keys at half of their time."""
        async with self._renewal:
            for kind in ("management", "inference"):
                await self._manage(f"/token?type={kind}", keys.renewal)
            if (renewed := self._process.keys()) is not None:
                self._take(renewed)

    async def _manage(self, path: str, key: str) -> bytes:
        assert self._session is not None
        authorization = {"Authorization": f"Bearer {key}"}
        url, patience = self._process.management + path, aiohttp.ClientTimeout(5)
        async with self._session.get(url, headers=authorization, timeout=patience) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _workers(self) -> frozenset[str]:
        """Workers that loaded the model and whose process lives: TorchServe lists the dead as ready."""
        assert self._keys is not None
        (described,) = orjson.loads(await self._manage(f"/models/{self._archived.name}", self._keys.management))
        pids = [worker["pid"] for worker in described["workers"] if worker["status"] == "READY"]
        return _living(pids)

    async def _canary(self, alive: frozenset[str]) -> None:
        """A prediction of a black image, by the very bundle that is in the archive."""
        side = self._archived.side_px
        tensor = {
            "name": "image",
            "datatype": "UINT8",
            "shape": [1, side, side],
            "parameters": {"binary_data_size": side**2},
        }
        head = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]})
        body = head + np.zeros(side**2, np.uint8).tobytes()
        path = f"/v2/models/{self._archived.name}/infer"
        async with asyncio.timeout(CANARY_SECONDS):
            reply = await self._ask(path, body, {HEADER_BYTES: str(len(head))})
        if reply.status != HTTPStatus.OK:
            logger.warning("a canary was answered by %d: %s", reply.status, reply.body[:300].decode(errors="replace"))
        elif orjson.loads(reply.body)["model_version"] != self._archived.digest[:DIGITS]:
            logger.critical("TorchServe serves another bundle than the archive holds")
        else:
            self._proven = alive


def _living(pids: Iterable[int]) -> frozenset[str]:
    """Names of those processes that live; no later process shares them."""
    return frozenset(filter(None, map(process_identity, pids)))


def _unavailable(reason: str, detail: str) -> RequestError:
    later = f"{detail}; come back in {LATER['Retry-After']} s"
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, reason, later, LATER)
