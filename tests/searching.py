"""Search a folder as a whole: what tests of de-identification and of erasure look through."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq


def everything_in(folder: Path) -> tuple[bytes, set[str]]:
    """All bytes of a folder, those inside of tables, archives and images included, and all texts in tables and JSON."""
    blobs, cells = [], set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        payload = path.read_bytes()
        blobs.append(path.name.encode())
        if path.suffix == ".parquet":  # its bytes are compressed: what they hold by accident says nothing
            table = pq.read_table(path)
            blobs.append(str(table.schema.metadata).encode())
            cells |= {value for row in table.to_pylist() for value in row.values() if isinstance(value, str)}
            continue
        blobs.append(payload)
        if path.suffix == ".json":
            cells |= set(texts(json.loads(payload)))
        elif path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    png = tar.extractfile(member).read()
                    blobs += [member.name.encode(), png, str(PIL.Image.open(io.BytesIO(png)).info).encode()]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                blobs += [arrays[name].tobytes() for name in arrays.files]
    return b"\0".join([*blobs, *(cell.encode() for cell in sorted(cells))]), cells


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []
