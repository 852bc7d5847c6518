"""Where a server listens, and how it ends: TLS, and the draining of what is under way."""

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer
import uvicorn
from starlette.types import ASGIApp

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


def tls_of(certificate: Path | None, key: Path | None, clients: Path | None) -> Tls | None:
    """Certificates as the options give them, or None where none is given.

    Raises:
        typer.BadParameter: One stands without another that it needs.
    """
    if (certificate is None) != (key is None) or (clients and certificate is None):
        raise typer.BadParameter("a certificate needs its key, and clients' certificates both", param_hint="--tls-...")
    return None if certificate is None or key is None else Tls(certificate, key, clients)


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


class Draining(Protocol):
    """What says that it is not ready once the server is about to end."""

    draining: bool


class DrainingServer(uvicorn.Server):
    """On SIGTERM it first says that it is not ready, while it answers on: a balancer needs a moment to look away."""

    def __init__(self, application: ASGIApp, served: Draining, listening: Listening) -> None:
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
        self._served, self._drain_seconds = served, listening.drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind; a port that is taken ends the server."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - uvicorn calls it with both
        """Drain, then end; a second signal ends without draining."""
        again, self._served.draining = self._served.draining, True
        if again or not self._drain_seconds or self._loop is None:
            self.should_exit = True
            return
        logger.info("draining for %g s", self._drain_seconds)
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, self._end)

    def _end(self) -> None:
        self.should_exit = True
