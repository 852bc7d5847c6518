"""What stands around every request: a bound on its body, and headers that tell browsers to trust nothing else."""

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
NO_STORE, A_DAY = "no-store", "max-age=86400"


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
        caching = A_DAY if scope["path"].startswith("/static/") else NO_STORE

        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = caching if message["status"] == 200 else NO_STORE
                if self._is_secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            await send(message)

        body = await self._body(scope, receive)
        if body is None:
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await shielded({"type": "http.response.start", "status": 413, "headers": headers})
            await shielded({"type": "http.response.body", "body": b'{"kind":"too_long","message":"too long"}'})
            return
        sent = False

        async def received() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, received, shielded)

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
            body += message.get("body", b"")
            if len(body) > self._most:
                return None
            if not message.get("more_body", False):
                return body
