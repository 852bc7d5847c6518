"""Servers to measure, clients that ask them without a pause, and what both of them used of the processor."""

import base64
import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
from resnet_bundle import drawn_images

ARCHIVE = "kermany_cxr_224.tar"
TICKS = os.sysconf("SC_CLK_TCK")

SCRIPT = """
local bodies = {%s}
local requests, next_one = {}, 0
function init(arguments)
  local headers = {["Content-Type"] = "application/json", ["Host"] = wrk.host .. ":" .. wrk.port}
  for index, body in ipairs(bodies) do
    requests[index] = wrk.format("POST", nil, headers, '{"instances":[{"image":{"b64":"' .. body .. '"}}]}')
  end
end
function request()
  next_one = next_one %% #requests + 1
  return requests[next_one]
end
function done(summary, latency, rates)
  local e = summary.errors
  io.write(string.format('JSON{"requests":%%d,"seconds":%%f,"p50_ms":%%f,"p99_ms":%%f,"refused":%%d,"broken":%%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""
"""Asks by turns for many images: whole requests are made once, so that the generator leaves the processor alone."""


def load_generator() -> str:
    """Path of wrk."""
    return shutil.which("wrk") or sys.exit("wrk is not installed: apt-get install wrk, or brew install wrk")


def jpegs(count: int) -> tuple[str, list[bytes]]:
    """What images they are, and JPEG files at 224: radiographs below SCANLOOP_DATA, else drawn ones."""
    data = Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data")) / ARCHIVE
    if data.is_file():
        with tarfile.open(data) as tar:
            members = sorted((one for one in tar if one.name.lower().endswith((".jpg", ".jpeg"))), key=lambda m: m.name)
            chosen = members[:: len(members) // count][:count]
            return "Kermany chest X-rays", [tar.extractfile(one).read() for one in chosen]  # type: ignore[union-attr]
    files = []
    for image in drawn_images(count):
        sink = io.BytesIO()
        PIL.Image.fromarray(image).save(sink, "JPEG", quality=75)
        files.append(sink.getvalue())
    return "drawn rings", files


def write_script(path: Path, files: Sequence[bytes]) -> Path:
    """The load generator's script for these images."""
    path.write_text(SCRIPT % ",".join(f'"{base64.b64encode(file).decode()}"' for file in files))
    return path


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Variant:
    """A server to measure.

    Attributes:
        name: In the figures.
        command: That starts it; "{port}" stands for its port.
        path: Where V1 requests go.
        ready: Answers 200 once it serves.
    """

    name: str
    command: Sequence[str]
    path: str
    ready: str


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    variant: Variant
    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[int]:
        """Itself and all that it started."""
        parents = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
        family = [self.process.pid]
        for one in family:
            family += [child for child, parent in parents.items() if parent == one]
        return family

    def cpu_seconds(self) -> float:
        """What it has used of the processor."""
        total = 0.0
        for one in self.processes():
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def memory_mib(self) -> float:
        """What it holds of the memory."""
        pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        if self.process.poll() is None:
            for one in self.processes():
                os.kill(one, number)

    def batches(self) -> tuple[float, float]:
        """Images and batches so far, as its metrics count them; zeros where they do not."""
        try:
            text = urllib.request.urlopen(f"{self.url}/metrics", timeout=5).read().decode()  # noqa: S310  our own address
        except OSError:
            return 0.0, 0.0
        found = dict(re.findall(r"^scanloop_batch_images_(sum|count) (\S+)$", text, re.MULTILINE))
        return float(found.get("sum", 0)), float(found.get("count", 0))


@contextmanager
def running(variant: Variant, folder: Path) -> Iterator[Running]:
    """A server, from when it is ready."""
    port, log = free_port(), folder / f"{variant.name.replace(' ', '-')}.log"
    command = [part.replace("{port}", str(port)) for part in variant.command]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    one = Running(variant, process, port)
    try:
        _wait(one, log)
        yield one
    finally:
        one.signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            one.signal(signal.SIGKILL)


def _wait(one: Running, log: Path | None = None, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and one.process.poll() is None:
        try:
            with urllib.request.urlopen(one.url + one.variant.ready, timeout=5):  # noqa: S310  our own address
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{one.variant.name} did not become ready:\n{log.read_text()[-2000:] if log else ''}")


@contextmanager
def alone(measured: Running, others: Sequence[Running], lock: Path | None) -> Iterator[None]:
    """Only this server runs; where others take turns on the machine, with the lock held."""
    handle = None if lock is None else lock.open("a")
    if handle is not None:
        fcntl.flock(handle, fcntl.LOCK_EX)
    for other in others:
        if other is not measured:
            other.signal(signal.SIGSTOP)
    try:
        _wait(measured)  # one that was stopped may have found itself too late
        yield
    finally:
        for other in others:
            if other is not measured:
                other.signal(signal.SIGCONT)
        if handle is not None:
            handle.close()


def _busy_seconds() -> float:
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS  # all but idle and waiting for disks


def load(server: Running, script: Path, clients: int, seconds: int) -> dict[str, Any]:
    """Figures of one window: clients who ask again as soon as they are answered.

    Returns:
        Requests a second, latencies, processor time a request of the server and of the generator, the share of the
        machine that others took meanwhile, and images a batch.
    """
    command = [load_generator(), "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    images, batches = server.batches()
    busy, used, started = _busy_seconds(), server.cpu_seconds(), time.perf_counter()
    generator = subprocess.Popen([*command, server.url + server.variant.path], stdout=subprocess.PIPE)
    assert generator.stdout is not None
    text = generator.stdout.read().decode()
    _, status, usage = os.wait4(generator.pid, 0)
    taken = time.perf_counter() - started
    busy, used = _busy_seconds() - busy, server.cpu_seconds() - used
    more_images, more_batches = server.batches()
    found = re.search(r"^JSON(.*)$", text, re.MULTILINE)
    if status or found is None:
        raise RuntimeError(f"wrk failed: {text}")
    figures = json.loads(found.group(1))
    if figures["refused"] or figures["broken"] or not figures["requests"]:
        raise RuntimeError(f"{server.variant.name} did not answer all: {figures}")
    count, own = figures["requests"], usage.ru_utime + usage.ru_stime
    return {
        "requests_per_second": count / figures["seconds"],
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "server_cpu_ms": used / count * 1e3,
        "generator_cpu_ms": own / count * 1e3,
        "others_share": max(0.0, (busy - used - own) / (taken * (os.cpu_count() or 1))),
        "images_per_batch": (more_images - images) / max(1.0, more_batches - batches),
        "requests": count,
    }
