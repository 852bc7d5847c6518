"""What a client reaches: the model's endpoints and readiness, and nothing else of TorchServe."""

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scanloop.bundle.torchserve import DIGITS, Archived
from serving.admission import Admission
from serving.metrics import LATENCY, REQUESTS
from serving.rejection import RequestError, refuse
from serving.tensors import metadata
from serving.torchserve.backend import HEADER_BYTES, LATER, Backend
from serving.v2 import INPUTS

KEPT = ("content-type", HEADER_BYTES)
"""Headers of an answer that go on to the client."""


@dataclass(frozen=True)
class Proxy:
    """Endpoints of one model.

    Attributes:
        backend: TorchServe.
        admission: Bounds what is under way; counts requests, for bodies are not opened here.
        archived: The model.
        body_bytes: Largest body.
        read_seconds: From a request's head to the end of its body.
    """

    backend: Backend
    admission: Admission
    archived: Archived
    body_bytes: int
    read_seconds: float

    def application(self) -> Starlette:
        """The endpoints, by the protocols' paths."""
        name = self.archived.name
        routes = [
            Route("/", self._alive),
            Route("/v2/health/live", self._alive),
            Route("/v2/health/ready", self._ready),
            Route(f"/v1/models/{name}", self._ready),
            Route(f"/v2/models/{name}/ready", self._ready),
            Route(f"/v2/models/{name}", self._metadata),
            Route("/metrics", self._metrics),
            Route(f"/v1/models/{name}:predict", self._predict, methods=["POST"]),
            Route(f"/v2/models/{name}/infer", self._predict, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: refuse})

    async def _predict(self, request: Request) -> Response:
        protocol = request.url.path[1:3]
        started, outcome = time.perf_counter(), "refused"
        try:
            answer = await self._pass_on(request)
            outcome = "answered" if answer.status_code == HTTPStatus.OK else "refused"
        finally:
            REQUESTS.labels(protocol, outcome).inc()
            LATENCY.labels(protocol).observe(time.perf_counter() - started)
        return answer

    async def _pass_on(self, request: Request) -> Response:
        stated = request.headers.get("content-length", "")
        room = int(stated) if stated.isdecimal() else self.body_bytes
        self.admission.take_bytes(room)
        try:
            body = await self._body(request)
            self.admission.take_images(1)
            try:
                kept = {HEADER_BYTES: request.headers[HEADER_BYTES]} if HEADER_BYTES in request.headers else {}
                reply = await self.backend.predict(request.url.path, body, kept)
            finally:
                self.admission.give_images(1)
        finally:
            self.admission.give_bytes(room)
        headers = {one: reply.headers[one] for one in KEPT if one in reply.headers}
        return Response(reply.body, reply.status, headers)

    async def _body(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self.read_seconds):
                return await request.body()
        except TimeoutError as error:
            detail = f"the body did not come within {self.read_seconds:g} s"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "slow_body", detail) from error

    async def _alive(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        if not self.backend.ready:
            detail = "the model is being loaded, its worker is being started again, or the server is about to end"
            # Not by an error, which would be counted and logged: this is asked every few seconds.
            return JSONResponse({"error": detail}, HTTPStatus.SERVICE_UNAVAILABLE, LATER)
        named: dict[str, Any] = {} if request.url.path == "/v2/health/ready" else {"name": self.archived.name}
        return JSONResponse(named | {"ready": True})

    async def _metadata(self, _: Request) -> Response:
        facts = {"name": self.archived.name, "versions": [self.archived.digest[:DIGITS]], "platform": "torchserve"}
        return JSONResponse(facts | {"inputs": INPUTS, "outputs": metadata(len(self.archived.classes))})

    async def _metrics(self, _: Request) -> Response:
        """The proxy's own, then TorchServe's, whose port is open to nobody else."""
        return Response(generate_latest() + await self.backend.metrics(), media_type=CONTENT_TYPE_LATEST)
