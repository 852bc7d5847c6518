"""What stands around every request: a bound on its body, and headers that tell browsers to trust nothing else."""

import logging
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOG = logging.getLogger(__name__)
NO_STORE, ASK_AGAIN = "no-store", "no-cache"


class Shield:
    """ASGI middleware that adds the headers to every answer, errors included, and refuses bodies that are too long.

    Args:
        app: What answers.
        most_body_bytes: Longest body.
        is_secure: Whether browsers come by https alone.
    """

    def __init__(self, app: ASGIApp, *, most_body_bytes: int, is_secure: bool) -> None:
        self._app, self._most, self._is_secure = app, most_body_bytes, is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caching = ASK_AGAIN if scope["path"].startswith("/static/") else NO_STORE

        has_begun = False

        async def shielded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = caching if message["status"] in (200, 304) else NO_STORE
                if self._is_secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            await send(message)

        body = await self._body(scope, receive)
        if body is None:
            await self._answer(shielded, 413, b'{"kind":"too_long","message":"the request is too long"}')
            return
        sent = False

        async def received() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._app(scope, received, shielded)
        except Exception:  # a fault of ours; its text may hold anything, so it goes to the log alone
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            if has_begun:
                raise
            await self._answer(shielded, 500, b'{"kind":"fault","message":"the page is at fault; its log says more"}')

    @staticmethod
    async def _answer(send: Send, code: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of a request's body, None where it is too long."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or len(said) > 12 or int(said) > self._most:
            return None
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return body
            body += bytes(message.get("body", b""))
            if len(body) > self._most:
                return None
            if not message.get("more_body", False):
                return body
