"""The endpoints that predict, as one ASGI application before KServe's, which keeps health, metadata and metrics.

KServe's own routes validate a body twice and walk it through four layers; on two cores that is a third of a request.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.guard import HEADER_BYTES
from serving.metrics import LATENCY, REQUESTS
from serving.openapi import POLICY, Page
from serving.predictor import Predictor
from serving.rejection import RequestError
from serving.v1 import answer_v1, read_v1
from serving.v2 import read_json, read_v2
from serving.v2_answer import answer_v2

JSON, BINARY = b"application/json", b"application/octet-stream"


@dataclass(frozen=True)
class Reply:
    """What goes back: the body, and how much of it is JSON where raw tensors follow."""

    body: bytes
    json_bytes: int | None = None


class Endpoints:
    """ASGI application: predictions here, all else in the application behind.

    Args:
        app: KServe's.
        predictor: Answers.
        pages: What is answered to GET, by path.
    """

    def __init__(self, app: ASGIApp, predictor: Predictor, pages: Mapping[str, Page]) -> None:
        self._app, self._predictor, self._pages = app, predictor, pages
        name = predictor.champion.name
        self._routes = {
            f"/v1/models/{name}:predict": ("v1", False),
            f"/v1/models/{name}:explain": ("v1", True),
            f"/v2/models/{name}/infer": ("v2", False),
            f"/v2/models/{name}/explain": ("v2", True),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            page = self._pages.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
            await (self._app if page is None else _response(page))(scope, receive, send)
            return
        protocol, explain = route
        started, outcome = time.perf_counter(), "refused"
        try:
            reply = await self._reply(protocol, Headers(scope=scope), receive, explain=explain)
            outcome = "answered"
        finally:
            REQUESTS.labels(protocol, outcome).inc()
            LATENCY.labels(protocol).observe(time.perf_counter() - started)
        await self._send(reply, send)

    async def _reply(self, protocol: str, headers: Headers, receive: Receive, *, explain: bool) -> Reply:
        limits, admission = self._predictor.limits, self._predictor.admission
        stated = headers.get("content-length", "")
        room = int(stated) if stated.isdecimal() else limits.body_bytes
        admission.take_bytes(room)
        try:
            body = await self._body(receive)
            if protocol == "v1":
                return await self._answer_v1(body, explain=explain)
            return await self._answer_v2(body, headers, explain=explain)
        finally:
            admission.give_bytes(room)

    async def _body(self, receive: Receive) -> bytes:
        seconds = self._predictor.limits.read_seconds
        try:
            async with asyncio.timeout(seconds):
                return await _read(receive)
        except TimeoutError as error:
            detail = f"the body did not come within {seconds:g} s"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "slow_body", detail) from error

    async def _answer_v1(self, body: bytes, *, explain: bool) -> Reply:
        try:
            stated = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, "broken_json", f"the body is not JSON: {error}") from error
        answer = await self._predictor.answer(read_v1(stated, self._predictor.limits.images, explain=explain))
        return Reply(orjson.dumps(answer_v1(answer)))

    async def _answer_v2(self, body: bytes, headers: Headers, *, explain: bool) -> Reply:
        request = read_json(body, _header_bytes(headers))
        asked = read_v2(request, self._predictor.limits.images, explain=explain)
        answer = await self._predictor.answer(asked)
        return Reply(*answer_v2(answer, self._predictor.champion.name, request))

    @staticmethod
    async def _send(reply: Reply, send: Send) -> None:
        kind = JSON if reply.json_bytes is None else BINARY
        headers = [(b"content-type", kind), (b"content-length", str(len(reply.body)).encode())]
        if reply.json_bytes is not None:
            headers.append((HEADER_BYTES.encode(), str(reply.json_bytes).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _response(page: Page) -> Response:
    """A page, from which a browser loads nothing."""
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(page.body, media_type=page.media_type, headers=headers)


async def _read(receive: Receive) -> bytes:
    """A request's body; the guard bounds it."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(HTTPStatus.BAD_REQUEST, "gone", "the connection ended before the body")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _header_bytes(headers: Headers) -> int | None:
    stated = headers.get(HEADER_BYTES)
    if stated is None:
        return None
    if not stated.isdecimal():
        raise RequestError(HTTPStatus.BAD_REQUEST, "invalid_field", f"{HEADER_BYTES}: must be a whole number of bytes")
    return int(stated)
