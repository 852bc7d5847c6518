"""What made an artifact: digests of the code, the data and the packages, and the machine it was made on."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scanloop.cores import usable_cores
from scanloop.storage.address import is_remote, local_path
from scanloop.storage.store import open_store
from scanloop.walk import files_below

PACKAGE_ROOT = Path(__file__).parent
PACKAGES = (
    "evidently", "great-expectations", "mlflow", "numpy", "onnx", "onnxruntime", "onnxscript", "openvino", "pandas",
    "pillow", "pyarrow", "pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm",
    "safetensors", "scikit-learn", "scipy", "simplejpeg", "torch", "torchvision", "umap-learn",
)  # fmt: skip
"""Packages whose version can change a result."""


def digest(payload: Any) -> str:
    """SHA-256 of a JSON-able value, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Source(NamedTuple):
    """What a step reads that is no artifact: a path or an address, and the endpoint of a server other than Amazon's."""

    location: str
    endpoint_url: str | None = None


def source_digest(source: Source) -> str:
    """Digest of what a source holds: a file's bytes, or the names, sizes and times of change of the files in a folder.

    An artifact counts by its record, which holds the digests of its files; objects in a store by their names, sizes
    and ETags. Where a store tells none, the digest is another one each time, so that what may have changed is read. A
    folder's files are not read, as it may be an archive of terabytes; one that is changed in place, with its size and
    its time of change put back, goes unseen. A link that leads nowhere counts with its target.

    Raises:
        StorageError: The store refuses or does not answer.
    """
    if is_remote(source.location):
        objects = open_store(source.location, source.endpoint_url).objects()
        unknown = time.time_ns() if any(one.version is None for one in objects) else None
        return digest([[list(one) for one in objects], unknown])
    path = local_path(source.location)
    if path.is_file():
        return file_digest(path)
    if (record := path / "artifact.json").is_file():
        return file_digest(record)
    total = hashlib.sha256()  # of one file after the other: a list of millions would hold gigabytes
    for file in files_below(path):
        total.update(json.dumps([os.fsencode(file.relative_to(path)).hex(), *_stamp(file)]).encode() + b"\n")
    return total.hexdigest()


def _stamp(file: Path) -> tuple[int, int | str]:
    try:
        status = file.stat()
    except OSError:  # a link to nothing, which the reader quarantines
        return file.lstat().st_size, os.fsencode(file.readlink()).hex() if file.is_symlink() else ""
    return status.st_size, status.st_mtime_ns


@cache
def code_digest(module: str) -> str:
    """Digest of a scanloop module, of every scanloop module that it imports, and of the data files beside them.

    The imports are read from the source, those inside functions included, so a changed line changes the digest of
    exactly the modules that can reach it.

    Args:
        module: Dotted name below `scanloop`, for example "scanloop.steps.triage".
    """
    files: set[Path] = set()
    waiting = [module]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _module_file(name)
        if path is None:
            continue
        files.add(path)
        files.update(sibling for sibling in path.parent.iterdir() if sibling.suffix in {".yaml", ".j2", ".css", ".js"})
        waiting.extend(_imports(path.read_text()))
    return digest([[str(path.relative_to(PACKAGE_ROOT)), file_digest(path)] for path in sorted(files)])


@cache
def library_digest() -> str:
    """Digest of the whole library's code: what a submitted run and the image that carries it out must share."""
    files = sorted(path for path in PACKAGE_ROOT.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return digest([[str(path.relative_to(PACKAGE_ROOT)), file_digest(path)] for path in files])


def packages() -> dict[str, str]:
    """Installed versions of the packages that can change a result, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The machine, without what identifies it: processor, threads, system and Python; the GPU where torch uses one."""
    return {
        "processor": platform.machine(),
        "processor_model": _processor_model(),
        "threads": os.environ.get("OMP_NUM_THREADS", "not limited"),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    } | _gpu()


def _processor_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu() -> dict[str, str]:
    """The GPU that a step could use, where it has loaded torch; empty elsewhere."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    facts = torch.cuda.get_device_properties(0)
    memory = f"{facts.total_memory / 2**30:.0f} GiB"
    return {"gpu": f"{facts.name}, {memory}, capability {facts.major}.{facts.minor}, CUDA {torch.version.cuda}"}


def _module_file(name: str) -> Path | None:
    base = PACKAGE_ROOT.joinpath(*name.split(".")[1:])
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(source: str) -> tuple[str, ...]:
    """Modules of scanloop that a source text imports, with the packages above them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for parts in (name.split(".") for name in names):
            if parts[0] == "scanloop":
                found += [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return tuple(found)
