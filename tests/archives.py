"""Small archives of class folders, for tests of ingest."""

import io
from pathlib import Path

import numpy as np
import PIL.Image

from scanloop.archive.decode import encode_png
from scanloop.artifacts import is_exempt
from scanloop.config import FolderSource, IngestConfig


def png(seed: int, side: int = 24) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8))


def jpeg(seed: int) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def put(root: Path, tree: dict[str, bytes]) -> Path:
    for name, payload in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
    return root


def small(root: Path, **extra: bytes) -> Path:
    tree = {f"labelled/cancer/{row}.png": png(row) for row in range(6)}
    tree |= {f"labelled/normal/{row}.png": png(row) for row in range(6, 12)}
    return put(root, tree | {f"unlabelled/{row}.png": png(row) for row in range(12, 20)} | extra)


def folder_config(root: Path, **changes: object) -> IngestConfig:
    return IngestConfig(source=FolderSource(path=str(root), deidentify=False), **changes)


def file_bytes(artifact: Path) -> dict[str, bytes]:
    files = (path for path in sorted(artifact.rglob("*")) if path.is_file() and not is_exempt(path))
    return {str(path.relative_to(artifact)): path.read_bytes() for path in files}
