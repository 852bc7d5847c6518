"""A model server that answers by rule, and misbehaves as it is told: what a client is tried against."""

import hashlib
import http.server
import json
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIGEST = "a" * 64


def probability(payload: bytes) -> float:
    """What the stub says of a file: a number made of its bytes."""
    return int(hashlib.sha256(payload).hexdigest()[:8], 16) / 2**32


@dataclass
class Script:
    """What the server does: `misbehave` is shown the number of a request and its files, and may answer in its place.

    It returns a status with headers, "drop" for a connection that ends, or None where the request is answered.
    """

    misbehave: Callable[[int, list[bytes]], tuple[int, dict[str, str]] | str | None] = lambda _number, _files: None
    seconds: float = 0.0
    asked: list[tuple[float, list[bytes], dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    most_at_once: int = 0
    at_once: int = 0

    @property
    def files(self) -> list[bytes]:
        return [one for _, files, _ in self.asked for one in files]


def _prediction(payload: bytes) -> dict[str, Any]:
    value = probability(payload)
    return {
        "label": "cancer" if value > 0.5 else "normal", "confidence": max(value, 1 - value),
        "probabilities": {"cancer": value, "normal": 1 - value}, "set": ["cancer"],
        "abstained": "low_confidence" if 0.4 < value < 0.6 else None, "strangeness": None, "model_digest": DIGEST,
    }  # fmt: skip


@contextmanager
def stub(script: Script, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Its address, while it serves V1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            files = [b64decode(one["image"]["b64"]) for one in body["instances"]]
            with script.lock:
                number = len(script.asked)
                script.asked.append((time.monotonic(), files, dict(self.headers)))
                script.at_once += 1
                script.most_at_once = max(script.most_at_once, script.at_once)
            time.sleep(script.seconds)
            done = script.misbehave(number, files)
            with script.lock:
                script.at_once -= 1
            if done == "drop":
                self.close_connection = True
                self.connection.close()
                return
            status, headers = (200, {}) if done is None else done  # type: ignore[misc]
            said = {"error": "not now"} if status != 200 else {"predictions": [_prediction(one) for one in files]}
            answer = json.dumps(said).encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(answer))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def files_in(folder: Path, count: int) -> list[Path]:
    """Files of different bytes, which the stub takes for images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"image %d" % number)
    return paths
