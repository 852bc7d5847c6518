"""How a request is refused: one error, one body `{"error": "..."}`, one counter, one line in the log."""

import logging
from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.metrics import REJECTED

logger = logging.getLogger("scanloop.serving")

EXAMPLE_V1 = '{"instances": [{"image": {"b64": "<base64 of a JPEG or PNG file>"}}]}'


class RequestError(HTTPException):
    """A request that cannot be answered, and why.

    It is an HTTPException because FastAPI turns any other error that arises while it reads a body into its own.

    Attributes:
        status_code: HTTP status, 4xx.
        reason: Short name for the counter, one of a fixed few.
        detail: What is wrong, and with which field.
    """

    def __init__(self, status: HTTPStatus, reason: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.reason = reason


def invalid(field: str, problem: str) -> RequestError:
    """Refusal of a request one of whose fields is missing or wrong."""
    return RequestError(HTTPStatus.BAD_REQUEST, "invalid_field", f"{field}: {problem}")


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer to a refused request."""
    refusal = _as_request_error(error)
    REJECTED.labels(refusal.reason).inc()
    logger.info("%s %s refused: %s", request.method, request.url.path, refusal.detail)
    return JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)


def _as_request_error(error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return _first_fault(error)
        case HTTPException():
            status = HTTPStatus(error.status_code)
            return RequestError(status, status.name.lower(), str(error.detail), dict(error.headers or {}))
    raise error


def _first_fault(error: RequestValidationError) -> RequestError:
    """The V2 body's first fault; FastAPI tries raw bytes as well, whose fault says nothing."""
    faults = [fault for fault in error.errors() if "bytes" not in fault["loc"]] or list(error.errors())
    fault = faults[0]
    if fault["type"] == "json_invalid":
        return RequestError(HTTPStatus.BAD_REQUEST, "broken_json", f"the body is not JSON: {fault['ctx']['error']}")
    path = ".".join(str(part) for part in fault["loc"] if part not in ("body", "InferenceRequest"))
    return invalid(path or "body", fault["msg"])
