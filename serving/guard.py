"""The gate before the application: which requests come through, how large they may be, and what leaks out."""

import logging
import re
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import carries, is_open
from serving.rejection import RequestError, refuse

logger = logging.getLogger("scanloop.serving")

_PREDICTION = re.compile(r"/v1/models/([^/:]+):(?:predict|explain)|/v2/models/([^/]+)/(?:infer|explain)")
_MEDIA_TYPES = ("application/json", "application/octet-stream")
HEADER_BYTES = "inference-header-content-length"
MOST_DIGITS = 18


@dataclass(frozen=True)
class Guard:
    """ASGI application around another one.

    KServe's own server lets anybody unload the model, takes bodies of any size, and answers what it did not foresee
    with a 500 and the exception's text.

    Attributes:
        app: The application behind.
        token: What requests must carry, or None.
        max_bytes: Largest body.
        name: Of the only model.
    """

    app: ASGIApp
    token: str | None
    max_bytes: int
    name: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._bounded(receive), note_start)
        except RequestError as error:
            await (await refuse(Request(scope), error))(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("%s failed", scope["path"])
            if started:
                raise
            answer = JSONResponse(
                {"error": "internal error; the server's log says more"}, HTTPStatus.INTERNAL_SERVER_ERROR
            )
            await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        authorized = self.token is None or carries(self.token, headers.get("authorization", ""))
        if not authorized and not is_open(method, path):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise RequestError(
                HTTPStatus.UNAUTHORIZED, "unauthorized", "send the header 'Authorization: Bearer <token>'", challenge
            )
        if path.startswith("/v2/repository"):
            raise RequestError(
                HTTPStatus.FORBIDDEN, "forbidden", "models are neither loaded nor unloaded over HTTP here"
            )
        if "/versions/" in path:
            raise RequestError(
                HTTPStatus.NOT_FOUND, "not_found", "models have no versions here; leave out /versions/..."
            )
        if method in {"GET", "HEAD"}:
            return
        if (found := _PREDICTION.fullmatch(path)) is None:
            known = "/v1/models/<name>:predict, :explain, or /v2/models/<name>/infer, /explain"
            raise RequestError(HTTPStatus.NOT_FOUND, "not_found", f"{path[:80]}: no such endpoint; post to {known}")
        if (name := found.group(1) or found.group(2)) != self.name:
            detail = f"model {name[:80]!r}: no such model; this server has {self.name}"
            raise RequestError(HTTPStatus.NOT_FOUND, "unknown_model", detail)
        if method != "POST":
            detail = f"{method}: a prediction is asked for by POST"
            raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, "method", detail, {"Allow": "POST"})
        self._check_body(path, headers)

    def _check_body(self, path: str, headers: Headers) -> None:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        taken = _MEDIA_TYPES if path.startswith("/v2") and HEADER_BYTES in headers else _MEDIA_TYPES[:1]
        if media_type not in taken or any(name.startswith("ce-") for name in headers):
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "content_type",
                f"Content-Type: must be application/json (V2: application/octet-stream where raw tensors follow), not "
                f"{media_type[:80]!r}; no CloudEvents",
            )
        if headers.get("content-encoding", "identity") != "identity":
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_encoding", "Content-Encoding: bodies come uncompressed here"
            )
        length = headers.get("content-length", "0")
        if is_count(length) and int(length) > self.max_bytes:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """The body's parts, until they are more than the limit: not every request says its length."""
        received = 0

        async def receive_part() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large()
            return message

        return receive_part

    def _too_large(self) -> RequestError:
        limit = f"{self.max_bytes / 2**20:g} MiB"
        return RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "request_too_large",
            f"the body is larger than {limit}; send fewer images",
        )


def is_count(stated: str) -> bool:
    """Whether a header is a whole number of bytes, of no more digits than Python turns into one."""
    return stated.isdecimal() and stated.isascii() and len(stated) <= MOST_DIGITS
