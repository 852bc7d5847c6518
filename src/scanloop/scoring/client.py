"""Ask a model server about image files: several requests at a time, patient with a busy server, in order."""

import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scanloop.errors import ConfigError, ImageError, ServiceError, StorageError
from scanloop.scoring.images import read_image_file
from scanloop.scoring.rows import Scored, unreadable
from scanloop.scoring.wire import HEADER_BYTES, Protocol, new_post, read_answer
from scanloop.storage.patience import PassingError, Patience

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("scanloop")

BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.REQUEST_TIMEOUT}
LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Certificates:
    """What TLS stands on.

    Attributes:
        authority: PEM file of who signs the server's certificate; the system's where it is None.
        certificate: PEM file that tells the server who asks; None where it need not know.
        key: PEM file of its key.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Settings of TLS.

        Raises:
            ConfigError: A file cannot be read, or is no such thing.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"--ca-file, --client-certificate, --client-key: {error}") from error
        return context


@dataclass(frozen=True)
class Service:
    """A model server, and how it is asked.

    Attributes:
        endpoint: http:// or https:// address.
        name: Of the model.
        protocol: "v1" or "v2".
        token: Bearer token, or None. Never shown.
        certificates: For https.
        batch: Images a request.
        in_flight: Requests at a time.
        timeout_seconds: For an answer.
        patience: With a server that is busy or away.
    """

    endpoint: str
    name: str = "scanloop"
    protocol: Protocol = "v2"
    token: str | None = field(default=None, repr=False)
    certificates: Certificates = field(default_factory=Certificates)
    batch: int = 16
    in_flight: int = 4
    timeout_seconds: float = 60.0
    patience: Patience = field(default_factory=lambda: Patience(attempts=8, first_seconds=0.25, most_seconds=60.0))

    def connection(self) -> "httpx.Client":
        """Connections to the server, kept open; safe in several threads.

        No proxy of the environment is used and no redirect followed: images go where they are said to go.

        Raises:
            ConfigError: httpx is missing, or the address is none.
        """
        try:
            import httpx
        except ImportError as error:
            raise ConfigError("predict asks a server by httpx; pip install 'scanloop[client]'") from error
        address = urlsplit(self.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname or address.username or address.query:
            raise ConfigError(
                "--endpoint: give http(s)://host:port, without a user or a query; tokens come from a file"
            )
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        limits = httpx.Limits(max_connections=self.in_flight, max_keepalive_connections=self.in_flight)
        verify = self.certificates.context() if address.scheme == "https" else True
        base = self.endpoint.rstrip("/") + "/"
        return httpx.Client(
            base_url=base, headers=headers, verify=verify, timeout=self.timeout_seconds, limits=limits, trust_env=False
        )


class _RefusedError(Exception):
    """The server will not answer this request, however often it is asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def ask(service: Service, paths: Sequence[Path]) -> Iterator[tuple[Path, Scored | None]]:
    """Each image with its row, in order; None where the server failed at that image alone, time and again.

    A request that is too large, or that the server refuses or fails at, is asked for in halves, so that one image
    spoils no other.

    Raises:
        ConfigError: The address or a certificate is wrong.
        ServiceError: The server is not there, does not let us in, or has no such model.
    """
    with service.connection() as connection, ThreadPoolExecutor(service.in_flight, "ask") as pool:
        asker = _Asker(service, connection)
        waiting: deque[Future[list[tuple[Path, Scored | None]]]] = deque()
        try:
            for start in range(0, len(paths), service.batch):
                waiting.append(pool.submit(asker.rows, paths[start : start + service.batch]))
                if len(waiting) > 2 * service.in_flight:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


@dataclass(frozen=True)
class _Asker:
    service: Service
    connection: "httpx.Client"

    def rows(self, paths: Sequence[Path]) -> list[tuple[Path, Scored | None]]:
        """Rows of some files, in order."""
        payloads: dict[Path, bytes] = {}
        found: dict[Path, Scored | None] = {}
        for path in paths:
            try:
                payloads[path] = read_image_file(path)
            except ImageError as error:
                found[path] = unreadable(str(path), str(error))
        found |= self._answered(list(payloads.items()))
        return [(path, found[path]) for path in paths]

    def _answered(self, images: list[tuple[Path, bytes]]) -> dict[Path, Scored | None]:
        if not images:
            return {}
        uris = [str(path) for path, _ in images]
        try:
            rows = self._post([payload for _, payload in images], uris)
            return {path: row for (path, _), row in zip(images, rows, strict=True)}
        except _RefusedError as error:
            if len(images) > 1:
                middle = len(images) // 2
                return self._answered(images[:middle]) | self._answered(images[middle:])
            logger.info("%s: %s", uris[0], error)
            failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            return {images[0][0]: None if failed else unreadable(uris[0], str(error))}

    def _post(self, payloads: list[bytes], uris: list[str]) -> list[Scored]:
        service = self.service
        post = new_post(service.protocol, service.name, payloads)
        try:
            return service.patience.try_for(
                f"POST {post.path}", self._attempt(post.path, post.headers, post.body, uris)
            )
        except StorageError as error:
            detail = str(error).rpartition(";")[0]
            raise ServiceError(f"{service.endpoint}: {detail}; run again when the server answers: it goes on") from None

    def _attempt(self, path: str, headers: object, body: bytes, uris: list[str]) -> Callable[[], list[Scored]]:
        import httpx

        tries = 0

        def attempt() -> list[Scored]:
            nonlocal tries
            tries += 1
            try:
                answer = self.connection.post(path, content=body, headers=headers)  # type: ignore[arg-type]
            except httpx.TransportError as error:
                if "CERTIFICATE" in str(error):
                    raise ServiceError(f"{self.service.endpoint}: {error}; see --ca-file") from error
                raise PassingError(f"no answer ({type(error).__name__} {error})") from error
            if answer.status_code == HTTPStatus.OK:
                return self._read(answer, uris)
            self._raise(answer, tries)
            raise AssertionError("every refusal raises")

        return attempt

    def _read(self, answer: "httpx.Response", uris: list[str]) -> list[Scored]:
        try:
            return read_answer(self.service.protocol, answer.content, answer.headers.get(HEADER_BYTES), uris)
        except ValueError as error:
            raise ServiceError(f"{self.service.endpoint}: {str(error)[:LONGEST_MESSAGE]}") from error

    def _raise(self, answer: "httpx.Response", tries: int) -> None:
        status, said = answer.status_code, _message(answer)
        if status in BUSY or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and tries < 3):
            wait = answer.headers.get("Retry-After", "")
            raise PassingError(f"{status}: {said}", float(wait) if wait.isdecimal() else None)
        about_an_image = status in (
            HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY,
        )  # fmt: skip
        if about_an_image or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _RefusedError(status, said)
        raise ServiceError(f"{self.service.endpoint}: {status}: {said}")


def _message(answer: "httpx.Response") -> str:
    try:
        said = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        said = answer.reason_phrase
    return str(said)[:LONGEST_MESSAGE]
