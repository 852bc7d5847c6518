"""TorchServe as a child on loopback, with a folder, ports and keys of its own."""

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import scanloop
from scanloop.bundle.torchserve import STORE, locked, written
from scanloop.errors import ConfigError
from serving.access import TOKEN_VARIABLE

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Keys:
    """What TorchServe asks for.

    Attributes:
        inference: Key of a prediction.
        management: Key of the workers' status.
        renewal: Key with which the others are replaced; it never expires.
        expires: When the first of them does.
    """

    inference: str
    management: str
    renewal: str
    expires: datetime


class TorchServe:
    """The process and its folder.

    Args:
        export: Folder with the archive.
        settings: Content of its `config.properties`; what closes TorchServe is put over it.
    """

    def __init__(self, export: Path, settings: Mapping[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="scanloop-torchserve-"))  # for us alone: mode 0700
        ports = free_ports(5)
        self.inference, self.management, self.metrics = (f"http://127.0.0.1:{port}" for port in ports[:3])
        config = self._folder / "config.properties"
        config.write_bytes(written(dict(settings) | locked(ports)))
        command = _command((export / STORE).resolve(), config, self._folder)
        # In a session of its own: a terminal's Ctrl-C is ours to pass on, once what is under way is answered.
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=self._folder,
            env=self._environment(),
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - it is one system call, bound before the fork
        )

    def _environment(self) -> dict[str, str]:
        scratch = self._folder / "tmp"
        scratch.mkdir()
        roots = [str(Path(scanloop.__file__).parents[1]), str(Path(__file__).parents[2])]
        paths = [*dict.fromkeys(roots), *filter(None, [os.environ.get("PYTHONPATH")])]
        logs = {"LOG_LOCATION": str(scratch), "METRICS_LOCATION": str(scratch), "OPENBLAS_NUM_THREADS": "1"}
        kept = {
            name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE and not name.startswith("TS_")
        }
        return kept | logs | {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(paths)}

    def ended(self) -> bool:
        """Whether it is not there any more."""
        return self._process.poll() is not None

    def keys(self) -> Keys | None:
        """The keys that hold now; None while TorchServe writes them."""
        try:
            stated = json.loads((self._folder / "key_file.json").read_bytes())
            expires = min(
                datetime.fromisoformat(stated[kind]["expiration time"]) for kind in ("inference", "management")
            )
            return Keys(stated["inference"]["key"], stated["management"]["key"], stated["API"]["key"], expires)
        except (FileNotFoundError, KeyError, ValueError):
            return None

    def stop(self) -> None:
        """End it with its workers, and leave nothing behind."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _command(store: Path, config: Path, folder: Path) -> list[str]:
    """What `torchserve --start` runs; without it there is no process between, which a signal would have to cross."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    return [
        str(_java()),
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "-cp",
        str(package / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("--ts-config-file", str(config)),
        *("--model-store", str(store)),
        "--no-config-snapshot",
    ]


def _java() -> Path:
    home = os.environ.get("JAVA_HOME")
    return Path(home) / "bin" / "java" if home else Path("java")


_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent is killed; workers end when TorchServe does."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def check_installed() -> None:
    """Return if TorchServe can be started.

    Raises:
        ConfigError: The package or Java is missing.
    """
    if importlib.util.find_spec("ts") is None:
        raise ConfigError("torchserve is not installed: pip install 'scanloop[torchserve]'")
    if shutil.which(_java()) is None:
        raise ConfigError(
            f"{_java()}: not found; TorchServe needs Java 17, for example the package openjdk-17-jre-headless"
        )


def free_ports(count: int) -> list[int]:
    """So many TCP ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def seconds_left(keys: Keys) -> float:
    """Until the first of the keys expires."""
    return (keys.expires - datetime.now(UTC)).total_seconds()
