"""What TorchServe's failures mean to a client: a server that fails as it does, in place of TorchServe."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from scanloop.bundle.torchserve import Archived
from scanloop.errors import ConfigError
from serving.rejection import RequestError
from serving.torchserve import process
from serving.torchserve.backend import Backend
from serving.torchserve.process import Keys, check_installed, free_ports

DIGEST = "0123456789abcdef" * 4
ARCHIVED = Archived("scanloop", DIGEST, ("a", "b"), 32, {})
V1 = "/v1/models/scanloop:predict"
WRONG_KEY = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}


class Faulty:
    """TorchServe to look at, with one worker: the process that runs the test."""

    def __init__(self, pid: int, **changes: Any) -> None:
        self.pid, self.version, self.key, self.asked = pid, DIGEST[:12], "one", 0
        self.written, self.life_seconds, self.write_seconds = "one", 3600.0, 0.0
        self.answer: Callable[[], Awaitable[web.Response]] = self.predicted
        self.inference = self.management = self.metrics = ""
        vars(self).update(changes)

    def ended(self) -> bool:
        return False

    def keys(self) -> Keys:
        return Keys(self.written, "management", "renewal", datetime.now(UTC) + timedelta(seconds=self.life_seconds))

    async def renew(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer renewal"
        if request.query["type"] == "inference":
            self.key += " more"
            await asyncio.sleep(self.write_seconds)  # it holds before it is written
            self.written = self.key
        return web.json_response({})

    async def predicted(self) -> web.Response:
        return web.json_response({"model_version": self.version})

    async def predict(self, request: web.Request) -> web.Response:
        self.asked += 1
        if request.headers["authorization"] != f"Bearer {self.key}":
            return web.json_response(WRONG_KEY, status=400)
        if request.path.startswith("/v2"):
            return await self.predicted()
        return await self.answer()

    async def describe(self, _: web.Request) -> web.Response:
        return web.json_response([{"workers": [{"pid": self.pid, "status": "READY"}]}])


def with_backend(faulty: Faulty, work: Callable[[Backend], Awaitable[None]], start_seconds: float = 60) -> None:
    """Run something next to a backend that looks after a server."""

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/{path:.*}", faulty.predict)
        application.router.add_get("/models/scanloop", faulty.describe)
        application.router.add_get("/token", faulty.renew)
        runner = web.AppRunner(application)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        faulty.inference = faulty.management = faulty.metrics = f"http://127.0.0.1:{port}"
        backend = Backend(faulty, ARCHIVED, 1.0, start_seconds)  # type: ignore[arg-type]
        watching = asyncio.create_task(backend.watch())
        try:
            await work(backend)
        finally:
            watching.cancel()
            await runner.cleanup()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def own_pid() -> int:
    return os.getpid()


async def respond(status: int, body: object) -> web.Response:
    return web.json_response(body, status=status, dumps=lambda value: orjson.dumps(value).decode())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"code": 500, "type": "InternalServerException", "message": "Worker died."}),
        (503, {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}),
        (507, {"message": "Out of resources"}),
        (404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: scanloop"}),
        (500, {"error": "internal error; the server's log says more"}),
    ],
)
def test_a_failure_of_torchserves_is_a_503_that_says_when_to_come_back(own_pid: int, status: int, body: object) -> None:
    faulty = Faulty(own_pid, answer=lambda: respond(status, body))

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        with pytest.raises(RequestError) as refused:
            await backend.predict(V1, b"{}", {})
        assert refused.value.status_code == 503
        assert refused.value.headers == {"Retry-After": "2"}
        assert "Exception" not in refused.value.detail
        assert backend.ready

    with_backend(faulty, work)


def test_the_handlers_refusal_is_the_clients_even_if_it_names_an_error_of_torchserves(own_pid: int) -> None:
    refusal = {"error": "inputs[0].datatype: must be BYTES, not 'InvalidKeyException'"}
    faulty = Faulty(own_pid, answer=lambda: respond(400, refusal))

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        before = faulty.asked
        reply = await backend.predict(V1, b"{}", {})
        assert (reply.status, orjson.loads(reply.body)) == (400, refusal)
        assert faulty.asked == before + 1

    with_backend(faulty, work)


def test_a_key_that_was_replaced_is_read_again_and_no_client_hears_of_it(own_pid: int) -> None:
    faulty = Faulty(own_pid)

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        faulty.key = faulty.written = "two"
        assert (await backend.predict(V1, b"{}", {})).status == 200

    with_backend(faulty, work)


def test_no_request_is_lost_while_keys_are_renewed_and_are_not_written_yet(own_pid: int) -> None:
    faulty = Faulty(own_pid, life_seconds=1.0, write_seconds=0.3)

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        while faulty.written.count("more") < 2:
            assert (await backend.predict(V1, b"{}", {})).status == 200
            await asyncio.sleep(0.01)

    with_backend(faulty, work)


def test_what_hangs_gets_nothing_more_until_a_canary_comes_back(own_pid: int) -> None:
    free = asyncio.Event()

    async def hang() -> web.Response:
        await free.wait()
        return await respond(200, {})

    faulty = Faulty(own_pid, answer=hang)

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        faulty.version = "another"  # so that no canary is right
        with pytest.raises(RequestError, match="no answer within 1 s"):
            await backend.predict(V1, b"{}", {})
        asked = faulty.asked
        with pytest.raises(RequestError, match="come back in 2 s"):
            await backend.predict(V1, b"{}", {})
        assert faulty.asked == asked
        free.set()
        faulty.version = DIGEST[:12]
        await until(lambda: backend.ready)

    with_backend(faulty, work)


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"version": "another"}])
def test_neither_a_dead_worker_nor_one_with_another_bundle_is_ready(own_pid: int, change: dict[str, Any]) -> None:
    faulty = Faulty(**{"pid": own_pid} | change)

    async def work(backend: Backend) -> None:
        await asyncio.sleep(1.5)
        assert not backend.ready

    with_backend(faulty, work)


def test_a_server_about_to_end_is_not_ready_and_answers_on(own_pid: int) -> None:
    faulty = Faulty(own_pid)

    async def work(backend: Backend) -> None:
        await until(lambda: backend.ready)
        backend.draining = True
        assert not backend.ready
        assert (await backend.predict(V1, b"{}", {})).status == 200

    with_backend(faulty, work)


def test_without_java_or_torchserve_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="openjdk-17-jre-headless"):
        check_installed()
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install"):
        check_installed()
