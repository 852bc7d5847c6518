"""KServe's model server, bound to one host, behind the guard, and with refusals that clients can act on."""

import logging
import warnings
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from kserve import ModelServer
from kserve.errors import InvalidInput
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from starlette.exceptions import HTTPException

from scanloop.bundle.predict import Bundle, available_cores
from serving.guard import Guard
from serving.metrics import announce
from serving.model import Classifier
from serving.rejection import RequestError, invalid, refuse


@dataclass(frozen=True)
class Settings:
    """How a bundle is served.

    Attributes:
        host: Address to bind to.
        port: TCP port.
        name: Name of the model in the URLs.
        token: What requests must carry, or None.
        max_batch: Most images a request.
        max_bytes: Largest request body.
        threads: Threads a forward pass uses; as many requests run at a time as fill the cores.
    """

    host: str
    port: int
    name: str
    token: str | None
    max_batch: int
    max_bytes: int
    threads: int


def serve(bundle: Bundle, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first. gRPC and `/docs` stay off."""
    workers = max(1, available_cores() // settings.threads)
    model = Classifier(settings.name, bundle, settings.max_batch, workers)
    announce(settings.name, bundle.digest, bundle.classes)
    app.add_middleware(Guard, token=settings.token, max_bytes=settings.max_bytes)
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refuse)
    server = _Server(settings.host, settings.port)
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)  # it says again what the access log and /metrics say
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # kserve's own use of it
    server.start([model])


class _Server(ModelServer):  # type: ignore[misc]  # kserve ships no usable types
    """KServe binds to every interface; here the host is ours."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(http_port=port, enable_grpc=False, enable_latency_logging=False, workers=1)
        self.host = host
        self.dataplane = _JsonPlane(model_registry=self.registered_models)

    async def _serve(self) -> None:
        self._rest_server.config.host = self.host
        await super()._serve()


class _JsonPlane(DataPlane):  # type: ignore[misc]  # kserve ships no usable types
    """KServe's data plane for JSON alone, whose faults are the client's and say so."""

    async def model_ready(self, model_name: str, _: bool = False) -> bool:
        if (model := self.model_registry.get_model(model_name)) is None:
            served = ", ".join(self.model_registry.get_models())
            detail = f"model {model_name[:80]!r}: no such model; this server has {served}"
            raise RequestError(HTTPStatus.NOT_FOUND, "unknown_model", detail)
        return bool(await model.healthy())

    def decode(self, body: Any, headers: Any, protocol_version: str = "v1", model_name: str | None = None) -> Any:
        if not isinstance(body, bytes):
            try:
                return super().decode(body, headers, protocol_version, model_name)
            except InvalidInput as error:  # half precision cannot be written in JSON; nothing else is refused there
                raise invalid("inputs[0].datatype", "must be BYTES (base64 of image files) or UINT8") from error
        if protocol_version != "v1":
            raise invalid("body", "must be a JSON object with 'inputs'")
        try:
            return orjson.loads(body), {}
        except orjson.JSONDecodeError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, "broken_json", f"the body is not JSON: {error}") from error
