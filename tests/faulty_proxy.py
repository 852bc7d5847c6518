"""An HTTP proxy in front of a real server that does to answers and requests what networks and busy servers do."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>'
FAULTS = {"slow_down", "slow_down_later", "reset", "cut", "flip", "flip_request", "lose_answer", "refuse_connection"}


class FaultyProxy:
    """Hands requests on. Planned faults befall the next requests that match, one each, in order.

    Attributes:
        url: Where it listens.
        seen: (method, path, fault or "") of every request so far.
    """

    def __init__(self, upstream: str, delay_seconds: float = 0.0) -> None:
        self.upstream = urlsplit(upstream)
        self.delay_seconds = delay_seconds
        self.seen: list[tuple[str, str, str]] = []
        self._plans: list[tuple[Callable[[str, str], bool], list[str]]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.proxy = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def plan(self, method: str, part: str, *faults: str) -> None:
        assert set(faults) <= FAULTS | {""}, faults
        self._plans.append((lambda own, path: own == method and part in path, list(faults)))

    def calm(self) -> None:
        self._plans.clear()

    def requests(self, method: str, part: str = "") -> list[str]:
        """Faults, or "", of the requests that match, in order."""
        return [fault for own, path, fault in self.seen if own == method and part in path]

    def next_fault(self, method: str, path: str) -> str:
        with self._lock:
            matching = (faults for matches, faults in self._plans if faults and matches(method, path))
            faults = next(matching, None)
            fault = faults.pop(0) if faults else ""
            self.seen.append((method, path, fault))
            return fault

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def proxy(self) -> FaultyProxy:
        found: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        return found

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # clients hang up on what we do to them
            self.close_connection = True

    def any(self) -> None:
        fault = self.proxy.next_fault(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.proxy.delay_seconds:
            threading.Event().wait(self.proxy.delay_seconds)
        if fault == "refuse_connection":
            return self.hang_up()
        if fault.startswith("slow_down"):
            return self.slow_down("1" if fault == "slow_down_later" else None)
        if fault == "flip_request":
            body = flipped(body)
        status, headers, answer = self.forwarded(body)
        if fault == "lose_answer":
            return self.hang_up()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"connection", "content-length", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(answer)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if fault in {"reset", "cut"}:
            self.wfile.write(answer[: len(answer) // 2])
            return self.hang_up(reset=fault == "reset")
        self.wfile.write(flipped(answer) if fault == "flip" else answer)
        return None

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = any

    def forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(
            self.proxy.upstream.hostname or "", self.proxy.upstream.port, timeout=30
        )
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        payload = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), payload

    def slow_down(self, retry_after: str | None) -> None:
        self.send_response(503)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(SLOW_DOWN)))
        self.end_headers()
        self.wfile.write(SLOW_DOWN)

    def hang_up(self, *, reset: bool = True) -> None:
        self.wfile.flush()
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR) if not reset else self.connection.close()

    def log_message(self, *arguments: Any) -> None:
        pass


def flipped(payload: bytes) -> bytes:
    """The same bytes but for one bit in the middle."""
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :] if payload else payload


@contextmanager
def faulty(upstream: str, delay_seconds: float = 0.0) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(upstream, delay_seconds)
    try:
        yield proxy
    finally:
        proxy.close()
