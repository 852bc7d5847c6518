"""Requests that nobody sends in earnest, made from a seed."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from served import V1, V2, encode

FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP")
DEEP = b"[" * 900 + b"]" * 900
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Sent:
    """A request: where to, what, and whether it can be answered with 200 at all."""

    kind: str
    path: str
    body: bytes
    headers: dict[str, str]


def _json(kind: str, path: str, body: object) -> Sent:
    return Sent(kind, path, json.dumps(body).encode(), JSON)


def image_request(kind: str, payload: bytes, number: int, **extra: Any) -> Sent:
    """A file by V1, V2 in JSON or V2 raw, by turns."""
    match number % 3:
        case 0:
            return _json(kind, V1, {"instances": [{"image": {"b64": encode(payload)} | extra}]})
        case 1:
            tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [encode(payload)]}
            return _json(kind, V2, {"inputs": [tensor]})
    return raw_request(kind, "BYTES", [1], struct.pack("<I", len(payload)) + payload)


def raw_request(
    kind: str, datatype: str, shape: list[int], raw: bytes, size: object = None, header: str | None = None
) -> Sent:
    """A tensor by the binary extension; `size` and `header` are what is claimed, the truth by default."""
    parameters = {"binary_data_size": len(raw) if size is None else size}
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    claimed = str(len(head)) if header is None else header
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": claimed}
    return Sent(kind, V2, head + raw, headers)


def files(draw: np.random.Generator) -> list[bytes]:
    """A small picture in every format."""
    pixels = draw.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    found = []
    for name in FORMATS:
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels).save(sink, name)
        found.append(sink.getvalue())
    return found


def mutated(payload: bytes, draw: np.random.Generator) -> bytes:
    """The file with bytes changed, cut out, doubled or cut off."""
    changed = bytearray(payload)
    for _ in range(int(draw.integers(1, 6))):
        at = int(draw.integers(0, max(1, len(changed))))
        end = at + int(draw.integers(1, 24))
        match int(draw.integers(0, 6)):
            case 0:
                changed[at:end] = draw.bytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end]
            case 3:
                del changed[at:]
            case 4:
                changed[at:end] = b"\xff" * (end - at)
            case 5:
                changed[at:end] = b"\x00" * (end - at)
    return bytes(changed)


def _png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that claim, or hold, far more than they are."""
    rows = zlib.compress(bytes(30_001 * 300), 9)
    yield "a PNG of 30000x30000", _png(30_000, 30_000, rows)
    yield "a PNG of 2^31 pixels a side", _png(2**31 - 1, 2**31 - 1, rows)
    yield "a PNG whose data is more than its size", _png(16, 16, zlib.compress(bytes(50_000_000), 9))
    sink = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(sink, "TIFF", compression="group4")
    yield "a TIFF of 20000x20000", sink.getvalue()
    sink = io.BytesIO()
    PIL.Image.new("L", (64, 64)).save(sink, "GIF")
    gif = bytearray(sink.getvalue())
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield "a GIF of 65535x65535", bytes(gif)
    sink = io.BytesIO()
    PIL.Image.new("L", (64, 64)).save(sink, "JPEG")
    jpeg = bytearray(sink.getvalue())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "a JPEG whose header lies", bytes(jpeg)
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 6_000, 6_000)
    yield "a JPEG that claims more rows than it has", bytes(jpeg)
    yield "a WEBP of nothing", b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(40)


def broken_json(draw: np.random.Generator) -> Iterator[Sent]:
    """Huge, deep, and shapeless JSON, and numbers that are none."""
    for path in (V1, V2):
        for name, body in {
            "deep lists": b"[" * 200_000,
            "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
            "a deep tensor": b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":' + DEEP + b"}]}",
            "many keys": json.dumps({str(key): key for key in range(50_000)}).encode(),
            "not UTF-8": b'{"instances": "\xff\xfe"}',
            "a lone surrogate": b'{"instances": [{"b64": "\\ud800"}]}',
            "nothing": b"",
            "a byte order mark": b"\xef\xbb\xbf{}",
            "NaN": b'{"instances": NaN, "inputs": NaN}',
            "a number beyond float64": b'{"instances": 1e400, "inputs": -1e400}',
        }.items():  # fmt: skip
            yield Sent(name, path, body, JSON)
    for value in ("NaN", "Infinity", "-Infinity", "1e400", "1e39", "null", '"1"', "true", "-0.0", "[]", "{}"):
        tensor = f'"name": "a", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [{", ".join([value] * 3072)}]'
        yield Sent(f"values {value}", V2, f'{{"inputs": [{{{tensor}}}]}}'.encode(), JSON)
    junk: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "", "x" * 5000, "\x00", [], {}, [[]], [None], {"b64": None})
    for value in junk:
        for body in ({"instances": value}, {"instances": [value]}, {"instances": [{"image": value}]}):
            yield _json("junk in V1", V1, body)
        yield _json("junk in V1", V1, {"instances": [{"b64": "AA=="}], "parameters": value})
        for field in ("name", "shape", "datatype", "data", "parameters"):
            tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AA=="]} | {field: value}
            yield _json("junk in V2", V2, {"inputs": [tensor]})
        for field in ("id", "inputs", "outputs", "parameters"):
            tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AA=="]}
            yield _json("junk in V2", V2, {"inputs": [tensor]} | {field: value})


def lying_tensors(draw: np.random.Generator) -> Iterator[Sent]:
    """Raw tensors whose sizes, shapes and types are not theirs."""
    values = draw.normal(size=(1, 3, 32, 32)).astype("<f4")
    for size in (-1, 0, 1, 10**12, 2**63, 2**70, "12", 1.5, None, True, []):
        yield raw_request("a size that lies", "FP32", [1, 3, 32, 32], values.tobytes(), size)
    for header in ("0", "1", "99999999", "-1", "1e3", "", "9" * 400, "٣", "1_0"):
        if header.isascii():
            yield raw_request("a header that lies", "FP32", [1, 3, 32, 32], values.tobytes(), None, header)
    for shape in ([1], [0, 3, 32, 32], [2, 3, 32, 32], [1, 3, 32], [2**40, 3, 32, 32], [1] * 50, [-1, 3, 32, 32], []):
        for datatype in ("FP32", "UINT8", "BYTES", "FP16", "INT64", "", "fp32"):
            yield raw_request("a shape that lies", datatype, shape, values.tobytes())
    for value in (np.nan, np.inf, -np.inf, 3e38):
        yield raw_request(
            "values beyond any pixel", "FP32", [1, 3, 32, 32], np.full((1, 3, 32, 32), value, "<f4").tobytes()
        )
    for raw in (b"", b"\x01", struct.pack("<I", 2**32 - 1), struct.pack("<I", 5) + b"ab", bytes(4) * 3):
        yield raw_request("BYTES that end early", "BYTES", [1], raw)


def dicom(archive: Path) -> list[bytes]:
    """Every sample object."""
    with tarfile.open(archive) as tar:
        return [tar.extractfile(one).read() for one in sorted(tar, key=lambda one: one.name) if one.isfile()]


def requests(seed: int) -> Iterator[Sent]:
    """Requests without an end: all of the fixed ones, then mutated files; the same for the same seed."""
    draw = np.random.default_rng(seed)
    for number, (kind, payload) in enumerate(bombs()):
        yield image_request(kind, payload, number)
    yield from broken_json(draw)
    yield from lying_tensors(draw)
    originals, number = files(draw), 0
    while True:
        for name, payload in zip(FORMATS, originals, strict=True):
            yield image_request(f"a mutated {name}", mutated(payload, draw), number)
            number += 1
