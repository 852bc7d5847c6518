"""KServe's model server, bound to one host, behind the guard, with endpoints and gRPC of our own."""

import asyncio
import logging
import threading
import warnings
from http import HTTPStatus

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
from serving.listening import GRACE_SECONDS, DrainingServer, Listening
from serving.model import Classifier
from serving.openapi import describe, pages
from serving.predictor import Predictor
from serving.rejection import RequestError, refuse

logger = logging.getLogger("scanloop.serving")


def serve(predictor: Predictor, listening: Listening, reload_seconds: float | None) -> int:
    """Serve until SIGTERM or SIGINT; requests under way are answered first. KServe's own gRPC and `/docs` stay off.

    Returns:
        Exit status: 0, or that of the error for which the model could not be loaded.
    """
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)  # it says again what /metrics says
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # kserve's own use of it
    server = DrainingServer(_application(predictor, listening), predictor.champion, listening)
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


def _load(champion: Champion, server: DrainingServer, reload_seconds: float | None) -> None:
    """Load the first model, beside the server that already answers that it lives."""
    try:
        champion.load()
    except ScanloopError as error:
        logger.critical("%s", error, exc_info=error.__cause__)
        server.status = error.exit_code
    except Exception:
        logger.exception("the model could not be loaded")
        server.status = 1
    if server.status:
        server.should_exit = True
    elif reload_seconds:
        champion.watch(reload_seconds)


async def _run(server: DrainingServer, predictor: Predictor, listening: Listening) -> None:
    grpc = None if listening.grpc_port is None else GrpcServer(predictor, listening)
    if grpc is not None:
        await grpc.start()
    try:
        await server.serve()
    finally:
        if grpc is not None:
            await grpc.stop(GRACE_SECONDS)


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
