"""V2 over gRPC, with the same checks as over HTTP. KServe's own service binds to every interface and asks nobody."""

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

from scanloop import __version__
from serving.access import carries
from serving.asked import Answer
from serving.listening import Listening
from serving.metrics import LATENCY, REJECTED, REQUESTS
from serving.predictor import Predictor
from serving.rejection import RequestError, invalid
from serving.tensors import metadata
from serving.v2 import INPUTS, Request, Tensor, check_shape, read_v2
from serving.v2_answer import facts_of, wanted_columns

logger = logging.getLogger("scanloop.serving")

CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""What gRPC calls a refusal."""

CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents", "FP32": "fp32_contents"}
OPEN = ("ServerLive", "ServerReady", "ModelReady")


class GrpcServer:
    """The service on its port.

    Args:
        predictor: Answers.
        listening: Host, port, token, certificates.
    """

    def __init__(self, predictor: Predictor, listening: Listening) -> None:
        limit = predictor.limits.body_bytes
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
        self._server = grpc.aio.server(interceptors=[_Token(listening.token)], options=options)
        stubs.add_GRPCInferenceServiceServicer_to_server(Service(predictor), self._server)
        self._address = f"{listening.host}:{listening.grpc_port}"
        self._credentials = None
        if (tls := listening.tls) is not None:
            clients = tls.clients.read_bytes() if tls.clients else None
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            self._credentials = grpc.ssl_server_credentials([pair], clients, clients is not None)

    async def start(self) -> None:
        """Bind and serve."""
        if self._credentials is None:
            self._server.add_insecure_port(self._address)
        else:
            self._server.add_secure_port(self._address, self._credentials)
        await self._server.start()
        logger.info("gRPC on %s", self._address)

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing more, answer what was asked, end."""
        await self._server.stop(grace_seconds)


class _Token(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Refuses calls without the bearer token, but for health and readiness."""

    def __init__(self, token: str | None) -> None:
        self._token = token

        async def refuse(_: Any, context: Any) -> None:
            REJECTED.labels("unauthorized").inc()
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "send the metadata 'authorization: Bearer <token>'")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        given = dict(details.invocation_metadata).get("authorization", "")
        if self._token is None or method in OPEN or carries(self._token, str(given)):
            return await continuation(details)
        return self._refusal


class Service(stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated code
    """The protocol's methods; the names are its own."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def ServerLive(self, _: Any, __: Any) -> Any:  # noqa: N802
        """Whether the process lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: Any) -> Any:  # noqa: N802
        """Whether it answers."""
        return pb.ServerReadyResponse(ready=self._predictor.champion.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The same, of the only model."""
        await self._check_name(request.name, context)
        return pb.ModelReadyResponse(ready=self._predictor.champion.ready)

    async def ServerMetadata(self, _: Any, __: Any) -> Any:  # noqa: N802
        """Name and version."""
        return pb.ServerMetadataResponse(name="scanloop", version=__version__, extensions=[])

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tensors in and out."""
        await self._check_name(request.name, context)
        try:
            bundle = self._predictor.champion.loaded().bundle
        except RequestError as error:
            await self._abort(error, context)
        described = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[bundle.digest[:12]],
            platform="scanloop",
            inputs=[described(**one) for one in INPUTS],
            outputs=[described(**one) for one in metadata(len(bundle.classes))],
        )

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Predictions."""
        started, outcome = time.perf_counter(), "refused"
        await self._check_name(request.model_name, context)
        try:
            read = _read(request)
            answer = await self._predictor.answer(read_v2(read, self._predictor.limits.images))
            outcome = "answered"
            return _response(answer, self._predictor.champion.name, read)
        except RequestError as error:
            await self._abort(error, context)
        except Exception:
            logger.exception("gRPC ModelInfer failed")
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log says more")
        finally:
            REQUESTS.labels("grpc", outcome).inc()
            LATENCY.labels("grpc").observe(time.perf_counter() - started)

    async def _check_name(self, name: str, context: Any) -> None:
        if name != (served := self._predictor.champion.name):
            detail = f"model {name[:80]!r}: no such model; this server has {served}"
            await self._abort(RequestError(HTTPStatus.NOT_FOUND, "unknown_model", detail), context)

    @staticmethod
    async def _abort(error: RequestError, context: Any) -> None:
        REJECTED.labels(error.reason).inc()
        if wait := (error.headers or {}).get("Retry-After"):
            context.set_trailing_metadata((("retry-after", wait),))
        code = CODES.get(HTTPStatus(error.status_code), grpc.StatusCode.FAILED_PRECONDITION)
        await context.abort(code, error.detail)


def _read(request: Any) -> Request:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise invalid("raw_input_contents", f"{len(raw)} for {len(request.inputs)} inputs; give each its own")
    tensors = []
    for index, given in enumerate(request.inputs[:2]):
        shape = list(given.shape)
        check_shape(f"inputs[{index}].shape", shape)
        values = None if raw else list(getattr(given.contents, CONTENTS.get(given.datatype, "bytes_contents")))
        tensors.append(Tensor(given.name, given.datatype, shape, values, raw[index] if raw else None))
    outputs = tuple(output.name for output in request.outputs)
    return Request(request.id or None, tensors, _values(request.parameters), outputs)


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "bool_param") for name, value in parameters.items()
    }


def _response(answer: Answer, name: str, request: Request) -> Any:
    facts = facts_of(answer, name, request.id)
    response = pb.ModelInferResponse(model_name=name, model_version=facts["model_version"], id=request.id or "")
    for key, value in facts["parameters"].items():
        response.parameters[key].string_param = value
    for column in wanted_columns(answer, request.outputs):
        response.outputs.add(name=column.name, datatype=column.datatype, shape=list(column.shape))
        response.raw_output_contents.append(column.raw())
    return response
