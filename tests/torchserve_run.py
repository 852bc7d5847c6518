"""A real TorchServe with a bundle in it, behind our guard: `with torchserve(bundle, scratch) as run: ...`."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from scanloop.bundle.torchserve import Settings, export
from scanloop.errors import ConfigError
from serving.torchserve.process import check_installed

CHECKOUT = Path(__file__).parents[1]
TOKEN = "correct horse"
START_SECONDS = 120


@dataclass(frozen=True)
class Run:
    """A guard and its TorchServe.

    Attributes:
        guard: The guard's process, which started TorchServe.
        client: Says our token.
        folder: Where TorchServe's keys and settings are.
        log: What both wrote.
    """

    guard: subprocess.Popen[bytes]
    client: httpx.Client
    folder: Path
    log: Path

    def ready(self) -> bool:
        return self.client.get("/v2/health/ready").status_code == 200

    def workers(self) -> list[int]:
        """Process ids of TorchServe's workers."""
        return [pid for pid in descendants(self.guard.pid) if "model_service_worker" in command_of(pid)]

    def java(self) -> int:
        (found,) = [pid for pid in descendants(self.guard.pid) if "org.pytorch.serve.ModelServer" in command_of(pid)]
        return found


def missing() -> str | None:
    """Why TorchServe cannot be started here; None where it can."""
    try:
        check_installed()
    except ConfigError as error:
        return str(error)
    return None


@contextmanager
def torchserve(
    bundle: Path,
    scratch: Path,
    *options: str,
    settings: Settings | None = None,
    change: Callable[[Path], None] | None = None,
) -> Iterator[Run]:
    """Export the bundle, start, wait until it predicts, and end it afterwards.

    Args:
        bundle: Its folder.
        scratch: Receives export, token and log.
        options: Of `python -m serving.torchserve`.
        settings: Of the export.
        change: Is shown the export before the start.
    """
    export(bundle, settings or Settings(), scratch / "export")
    if change is not None:
        change(scratch / "export")
    (scratch / "token").write_text(f"{TOKEN}\n")
    port = free_port()
    command = [sys.executable, "-m", "serving.torchserve", "--store", str(scratch / "export"), "--port", str(port)]
    log = scratch / "server.log"
    with log.open("wb") as sink:
        command += ["--token-file", str(scratch / "token"), *options]
        guard = subprocess.Popen(command, cwd=CHECKOUT, stdout=sink, stderr=subprocess.STDOUT)
    authorization = {"authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=authorization, timeout=60, trust_env=False)
    try:
        folder = _until_ready(guard, client, log)
        yield Run(guard, client, folder, log)
    finally:
        client.close()
        guard.send_signal(signal.SIGTERM)
        try:
            guard.wait(timeout=30)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()


def _until_ready(guard: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> Path:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and guard.poll() is None:
        try:
            if client.get("/v2/health/ready").status_code == 200:
                return folder_of(guard.pid)
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def folder_of(guard: int) -> Path:
    """The private folder of the TorchServe that a guard started."""
    child = next(pid for pid in descendants(guard) if "org.pytorch.serve.ModelServer" in command_of(pid))
    return Path(f"/proc/{child}/cwd").readlink()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
