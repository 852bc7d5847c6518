"""A bundle as TorchServe takes it: an archive that holds it, and settings that close what TorchServe leaves open.

The archive's layout: https://github.com/pytorch/serve/blob/v0.12.0/model-archiver/README.md. It is written here and
not by torch-model-archiver, which stamps it with the time.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanloop.artifacts import write_bytes
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.engines.engine import EngineName, Precision
from scanloop.bundle.read import read_bundle
from scanloop.errors import ConfigError

STORE, CONFIG = "model-store", "config/config.properties"
"""Below the export's folder, where KServe looks for them as well."""

BUNDLE = "bundle"
"""Folder of the bundle in the archive."""

HANDLER = '''\
"""TorchServe takes the one class of this file; what that does is installed beside TorchServe, with scanloop."""

from serving.torchserve import handler


class Handler(handler.Handler):
    """Calibrated answers from the bundle in this archive."""
'''

MANIFEST, FACTS = "MAR-INF/MANIFEST.json", "scanloop.json"
"""TorchServe's, and what the handler reads: a model-config.yaml would hide half of what config.properties says."""

FIRST_OF_ALL_TIMES = (1980, 1, 1, 0, 0, 0)
HEADROOM_BYTES = 2**20
DIGITS = 12
"""Of the bundle's digest: the model's version, in V2 and here."""

PORTS = range(8085, 8090)


@dataclass(frozen=True)
class Settings:
    """How TorchServe runs a bundle.

    Attributes:
        name: Of the model, in the URLs.
        engine: Runs the network.
        precision: Of its convolutions.
        threads: Of a forward pass.
        workers: Processes, each with the bundle in memory.
        batch: Most requests that one forward pass answers.
        delay_ms: How long a batch waits to fill up.
        max_images: Images a request.
        max_request_mib: Largest body.
        timeout_seconds: After this a worker counts as stuck and is started again.
        queue: Requests that may wait.
    """

    name: str = "scanloop"
    engine: EngineName = "onnxruntime"
    precision: Precision = "float32"
    threads: int = 1
    workers: int = 1
    batch: int = 8
    delay_ms: int = 5
    max_images: int = 32
    max_request_mib: int = 16
    timeout_seconds: int = 60
    queue: int = 128

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(f"--name {self.name}: letters, digits, '_' and '-' only")


def export(bundle: Path, settings: Settings, output: Path) -> Path:
    """Write `model-store/NAME.mar` and `config/config.properties`; the same bytes whenever the inputs are the same.

    Args:
        bundle: The bundle's directory. The engine that will serve it reads it, and refuses here what it would refuse.
        settings: How TorchServe runs it.
        output: Folder.

    Returns:
        The archive.

    Raises:
        BundleError: The bundle is not whole, or the engine gives its reference images other probabilities.
        ConfigError: The engine is not installed, or does not compute in this precision.
    """
    found = read_bundle(bundle, Wanted(settings.engine, settings.precision, settings.threads))
    content = {f"{BUNDLE}/{name}": (bundle / name).read_bytes() for name in ["bundle.json", *found.about["files"]]}
    version = found.digest[:DIGITS]
    path = output / STORE / f"{settings.name}.mar"
    write_bytes(path, _archive(content | _facts(settings, version)))
    write_bytes(output / CONFIG, written(properties(settings, version)))
    return path


def _facts(settings: Settings, version: str) -> dict[str, bytes]:
    model = {"modelName": settings.name, "modelVersion": version, "handler": "handler.py"}
    manifest = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "archiverVersion": "0.12.0", "model": model}
    names = ("engine", "precision", "threads", "max_images")
    return {
        MANIFEST: json.dumps(manifest, indent=2).encode(),
        FACTS: json.dumps({name: getattr(settings, name) for name in names}, indent=2).encode(),
        "handler.py": HANDLER.encode(),
    }


def _archive(content: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, payload in sorted(content.items()):
            entry = zipfile.ZipInfo(name, FIRST_OF_ALL_TIMES)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, payload)
    return sink.getvalue()


def properties(settings: Settings, version: str) -> dict[str, str]:
    """Content of `config.properties`: the model's own, and what `locked` closes."""
    served = {
        "defaultVersion": True,
        "marName": f"{settings.name}.mar",
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch,
        "maxBatchDelay": settings.delay_ms,
        "responseTimeout": settings.timeout_seconds,
    }
    return locked(PORTS) | {
        "load_models": f"{settings.name}.mar",
        "models": json.dumps({settings.name: {version: served}}),
        "default_workers_per_model": str(settings.workers),
        "default_response_timeout": str(settings.timeout_seconds),
        "job_queue_size": str(settings.queue),
        "max_request_size": str(settings.max_request_mib * 2**20),
        "max_response_size": str(settings.max_request_mib * 2**20 + HEADROOM_BYTES),
    }


def locked(ports: Sequence[int]) -> dict[str, str]:
    """What no edit of the file can open again: whoever starts TorchServe for a bundle puts these over it.

    Args:
        ports: Five, on loopback: inference, management, metrics, and gRPC's two, which cannot be left off.
    """
    inference, management, metrics, grpc_inference, grpc_management = ports
    return {
        "inference_address": f"http://127.0.0.1:{inference}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": str(grpc_inference),
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": str(grpc_management),
        "disable_token_authorization": "false",
        "enable_model_api": "false",
        "allowed_urls": "none",
        "use_env_allowed_urls": "false",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "metrics_mode": "prometheus",
        "model_metrics_auto_detect": "true",
        "disable_system_metrics": "true",
    }


def written(values: Mapping[str, str]) -> bytes:
    """A properties file; TorchServe takes a backslash for an escape, so none of our values holds one."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def read_properties(path: Path) -> dict[str, str]:
    """What a properties file says.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); make it by scanloop export torchserve") from error
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


@dataclass(frozen=True)
class Archived:
    """What an export says of its model.

    Attributes:
        name: In the URLs.
        digest: Of the bundle.
        classes: Names of the outputs.
        side_px: Side of an image that no limit refuses.
        settings: Content of `config.properties`.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    side_px: int
    settings: Mapping[str, str]


def read_export(folder: Path) -> Archived:
    """What stands in an export's folder.

    Raises:
        ConfigError: It is none, or holds another archive than its settings name.
    """
    settings = read_properties(folder / CONFIG)
    path = folder / STORE / settings.get("load_models", "")
    try:
        with zipfile.ZipFile(path) as archive:
            model = json.loads(archive.read(MANIFEST))["model"]
            seal, classes, preprocess = (
                archive.read(f"{BUNDLE}/{name}") for name in ("bundle.json", "classes.json", "preprocess.json")
            )
        limits, names = json.loads(preprocess), tuple(json.loads(classes)["classes"])
        side = max(int(limits["input_px"]), int(limits["min_side_px"]))
        return Archived(model["modelName"], hashlib.sha256(seal).hexdigest(), names, side, settings)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: no archive of ours ({error}); make it by scanloop export torchserve") from error
