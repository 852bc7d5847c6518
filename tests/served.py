"""A real server over a tiny bundle, and what one says to it."""

import base64
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tiny_bundle import draw_slices, new_bundle, to_jpeg

from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle

V1 = "/v1/models/scanloop:predict"
V2 = "/v2/models/scanloop/infer"
MAX_BATCH = 24
TOKEN = "correct horse"
CHECKOUT = Path(__file__).parents[1]
JPEG = to_jpeg(draw_slices(1)[0])
LARGE = to_jpeg(np.full((2000, 2000, 3), 90, np.uint8))


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path


def start(scratch: Path, bundle: Path, *options: str) -> Server:
    port, log = free_port(), scratch / "server.log"
    process = launch(log, bundle, "--port", str(port), *options)
    authorization = {"authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=authorization, timeout=30, trust_env=False)
    wait_until_ready(client, process, log)
    return Server(process, client, log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(log: Path, bundle: Path, *options: str, opened: bool = True) -> "subprocess.Popen[bytes]":
    with log.open("wb") as sink:
        command = command_line(bundle, *options, opened=opened)
        return subprocess.Popen(command, cwd=CHECKOUT, stdout=sink, stderr=subprocess.STDOUT)


def wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/v2/models/scanloop/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    process.kill()
    raise AssertionError(log.read_text())


def command_line(bundle: Path, *options: str, opened: bool = True) -> list[str]:
    chosen = ["--engine", "onnxruntime", *(["--open"] if opened else [])]
    return [sys.executable, "-m", "serving", "--bundle", str(bundle), *chosen, *options]


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(served_folder: Path) -> Bundle:
    return read_bundle(served_folder)


@pytest.fixture(scope="module")
def server(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("server")
    (scratch / "token").write_text(f"{TOKEN}\n")
    options = ("--max-batch", str(MAX_BATCH), "--max-request-mib", "4", "--token-file", str(scratch / "token"))
    server = start(scratch, served_folder, *options)
    yield server
    server.client.close()
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server.client


def encode(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def v1(*payloads: bytes) -> dict[str, Any]:
    return {"instances": [{"image": {"b64": encode(payload)}} for payload in payloads]}


def v2(*payloads: bytes, **changes: Any) -> dict[str, Any]:
    texts = [encode(payload) for payload in payloads]
    return {"inputs": [{"name": "image", "shape": [len(texts)], "datatype": "BYTES", "data": texts} | changes]}


def pixels(images: list[np.ndarray], **changes: Any) -> dict[str, Any]:
    stack = np.stack(images)
    tensor = {"name": "image", "shape": list(stack.shape), "datatype": "UINT8", "data": stack.ravel().tolist()}
    return {"inputs": [tensor | changes]}


def v1_probabilities(answer: httpx.Response, bundle: Bundle) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([[row["probabilities"][name] for name in bundle.classes] for row in answer.json()["predictions"]])


def v2_outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer.json()["outputs"]}


def metric(client: httpx.Client, series: str) -> float:
    (value,) = re.findall(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE) or ["nan"]
    return float(value)
