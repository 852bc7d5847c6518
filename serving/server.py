"""KServe's model server, bound to one host, behind the guard, with endpoints and gRPC of our own."""

import asyncio
import logging
import socket
import ssl
import threading
import warnings
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from kserve import ModelRepository
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from scanloop.errors import ScanloopError
from serving.champion import Champion
from serving.endpoints import Endpoints
from serving.grpc_service import GrpcServer
from serving.guard import Guard
from serving.model import Classifier
from serving.openapi import describe, pages
from serving.predictor import Predictor
from serving.rejection import RequestError, refuse

logger = logging.getLogger("scanloop.serving")

GRACE_SECONDS = 30
KEEP_ALIVE_SECONDS = 65
"""Longer than a balancer's, which otherwise meets connections that have just been closed."""


@dataclass(frozen=True)
class Tls:
    """Certificates.

    Attributes:
        certificate: PEM file of the server's chain.
        key: PEM file of its key.
        clients: PEM file of who signs the clients' certificates, which are then demanded; None demands none.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True)
class Listening:
    """Where and for whom a server listens.

    Attributes:
        host: Address to bind to.
        port: TCP port of HTTP.
        grpc_port: TCP port of gRPC; None leaves it off.
        token: What requests must carry, or None.
        tls: Certificates, or None.
        drain_seconds: After SIGTERM it says that it is not ready and answers on for so long.
    """

    host: str
    port: int
    grpc_port: int | None
    token: str | None
    tls: Tls | None
    drain_seconds: float


def serve(predictor: Predictor, listening: Listening, reload_seconds: float | None) -> int:
    """Serve until SIGTERM or SIGINT; requests under way are answered first. KServe's own gRPC and `/docs` stay off.

    Returns:
        Exit status: 0, or that of the error for which the model could not be loaded.
    """
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)  # it says again what /metrics says
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # kserve's own use of it
    server = _Server(_application(predictor, listening), predictor.champion, listening)
    threading.Thread(target=_load, args=(predictor.champion, server, reload_seconds), name="load", daemon=True).start()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_run(server, predictor, listening))
    predictor.champion.close()
    return server.status


def _application(predictor: Predictor, listening: Listening) -> ASGIApp:
    """KServe's application with the champion in it, behind the endpoints and the guard."""
    models = ModelRepository()
    models.update(Classifier(predictor.champion))
    RESTServer("kserve.model_server:app", _Plane(model_registry=models), None, listening.port).create_application()
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refuse)
    name, limits = predictor.champion.name, predictor.limits
    described = pages(describe(name, limits, secured=listening.token is not None))
    behind = Endpoints(app, predictor, described)
    return Guard(behind, listening.token, limits.body_bytes, name)


def _load(champion: Champion, server: "_Server", reload_seconds: float | None) -> None:
    """Load the first model, beside the server that already answers that it lives."""
    try:
        champion.load()
    except ScanloopError as error:
        logger.critical("%s", error)
        server.status = error.exit_code
    except Exception:
        logger.exception("the model could not be loaded")
        server.status = 1
    if server.status:
        server.should_exit = True
    elif reload_seconds:
        champion.watch(reload_seconds)


async def _run(server: "_Server", predictor: Predictor, listening: Listening) -> None:
    grpc = None if listening.grpc_port is None else GrpcServer(predictor, listening)
    if grpc is not None:
        await grpc.start()
    try:
        await server.serve()
    finally:
        if grpc is not None:
            await grpc.stop(GRACE_SECONDS)


class _Server(uvicorn.Server):
    """On SIGTERM it first says that it is not ready, while it answers on: a balancer needs a moment to look away."""

    def __init__(self, application: ASGIApp, champion: Champion, listening: Listening) -> None:
        tls = listening.tls
        certificates: dict[str, Any] = {}
        if tls is not None:
            certificates = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
        if tls is not None and tls.clients is not None:
            certificates |= {"ssl_ca_certs": str(tls.clients), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        config = uvicorn.Config(
            application,
            host=listening.host,
            port=listening.port,
            log_config=None,
            access_log=False,  # /metrics counts requests; a line each costs more than that
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            **certificates,
        )
        super().__init__(config)
        self.status = 0
        self._champion, self._drain_seconds = champion, listening.drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind; a port that is taken ends the server."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - uvicorn calls it with both
        """Drain, then end; a second signal ends without draining."""
        again, self._champion.draining = self._champion.draining, True
        if again or not self._drain_seconds or self._loop is None:
            self.should_exit = True
            return
        logger.info("draining for %g s", self._drain_seconds)
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, self._end)

    def _end(self) -> None:
        self.should_exit = True


class _Plane(DataPlane):  # type: ignore[misc]  # kserve ships no usable types
    """KServe's data plane, whose faults are the client's and say so."""

    async def model_ready(self, model_name: str, _: bool = False) -> bool:
        if (model := self.model_registry.get_model(model_name)) is None:
            served = ", ".join(self.model_registry.get_models())
            detail = f"model {model_name[:80]!r}: no such model; this server has {served}"
            raise RequestError(HTTPStatus.NOT_FOUND, "unknown_model", detail)
        if not await model.healthy():
            later = {"Retry-After": "2"}
            detail = "the model is being loaded, or the server is about to end"
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", detail, later)
        return True

    async def ready(self) -> bool:
        return all([await self.model_ready(name) for name in self.model_registry.get_models()])
