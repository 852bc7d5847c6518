"""V2, the Open Inference Protocol: https://github.com/kserve/open-inference-protocol, with its binary tensors."""

import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson

from serving.asked import Asked, Sent, check_count, read_parameters
from serving.rejection import RequestError, invalid
from serving.tensors import names_of

INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
"""Metadata of the input tensor. UINT8 of shape [n, h, w] or [n, h, w, 3] and FP32 of [n, 3, s, s] are taken as well."""

KINDS = "must be BYTES (base64 of image files), UINT8 (pixels) or FP32 (the network's own normalised input)"
LARGEST_INPUT = 10_000
"""Far beyond any normalised pixel: larger numbers may overflow in the network, whose answer is no number then."""
BYTES_A_VALUE = {"UINT8": 1, "FP32": 4}


@dataclass(frozen=True)
class Tensor:
    """An input tensor, its values as JSON, or raw.

    Attributes:
        name: Anything.
        datatype: As the protocol names it.
        shape: Of the values.
        data: Values, nested like the shape or flat; None where they are raw.
        raw: Values as the binary extension and gRPC write them; None where they are not.
    """

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None
    raw: bytes | memoryview | None = None


@dataclass(frozen=True)
class Request:
    """A V2 request.

    Attributes:
        id: Given back; None where it has none.
        tensors: Inputs.
        parameters: As sent.
        outputs: Names that are wanted; all where it is empty.
        binary: Names of the outputs that are wanted raw; None where all are.
    """

    id: str | None
    tensors: list[Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    binary: frozenset[str] | None = frozenset()


def read_json(body: bytes, header_bytes: int | None = None) -> Request:
    """A request in JSON, or in JSON of so many bytes followed by raw tensors.

    Raises:
        RequestError: It is none; the message names the field.
    """
    head = body if header_bytes is None else body[:header_bytes]
    if header_bytes is not None and header_bytes > len(body):
        raise invalid("Inference-Header-Content-Length", f"{header_bytes} is more than the body's {len(body)} bytes")
    try:
        stated = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "broken_json", f"the body is not JSON: {error}") from error
    if not isinstance(stated, dict):
        raise invalid("body", "must be a JSON object with 'inputs'")
    tensors, left = _tensors(stated, memoryview(body)[len(head) :])
    if left:
        raise invalid("body", f"{left} bytes are left over behind the tensors")
    identity, parameters = stated.get("id"), stated.get("parameters")
    if identity is not None and not isinstance(identity, str):
        raise invalid("id", "must be a text")
    if parameters is not None and not isinstance(parameters, dict):
        raise invalid("parameters", "must be an object")
    outputs, binary = _outputs(stated.get("outputs"), parameters or {})
    return Request(identity, tensors, parameters or {}, outputs, binary)


def _tensors(stated: Mapping[str, Any], raw: memoryview) -> tuple[list[Tensor], int]:
    inputs = stated.get("inputs")
    if not isinstance(inputs, list):
        raise invalid("inputs", "must be a list of one tensor")
    tensors, offset = [], 0
    for index, given in enumerate(inputs[:2]):
        place = f"inputs[{index}]"
        if not isinstance(given, dict):
            raise invalid(place, "must be an object with name, shape, datatype and data")
        name, datatype, shape, data = (given.get(key) for key in ("name", "datatype", "shape", "data"))
        if not isinstance(name, str):
            raise invalid(f"{place}.name", "must be a text")
        if not isinstance(datatype, str):
            raise invalid(f"{place}.datatype", KINDS)
        sides = check_shape(f"{place}.shape", shape)
        size = _binary_size(place, given.get("parameters"))
        if size is None and not isinstance(data, list):
            raise invalid(f"{place}.data", "must be a list of values")
        if size is not None and offset + size > len(raw):
            raise invalid(f"{place}.parameters.binary_data_size", f"{size} bytes are more than the body holds")
        part = None if size is None else raw[offset : offset + size]
        offset += size or 0
        tensors.append(Tensor(name, datatype, sides, data if size is None else None, part))
    return tensors, len(raw) - offset


def check_shape(place: str, shape: object) -> list[int]:
    """A shape, if it is one: a list of positive whole numbers.

    Raises:
        RequestError: It is none.
    """
    sides = shape if isinstance(shape, list) else []
    if not sides or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise invalid(place, f"must be positive whole numbers, not {str(shape)[:80]}")
    return sides


def _binary_size(place: str, parameters: object) -> int | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise invalid(f"{place}.parameters", "must be an object")
    size = parameters.get("binary_data_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise invalid(f"{place}.parameters.binary_data_size", "must be a whole number of bytes")
    return size


def _outputs(wanted: object, parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[str] | None]:
    whole = parameters.get("binary_data_output", False)
    if not isinstance(whole, bool):
        raise invalid("parameters.binary_data_output", "must be true or false")
    if wanted is None:
        return (), None if whole else frozenset()
    if not isinstance(wanted, list):
        raise invalid("outputs", "must be a list of objects with a name")
    names, binary = [], set()
    for index, output in enumerate(wanted):
        if not isinstance(output, dict) or output.get("name") not in names_of():
            raise invalid(f"outputs[{index}].name", f"must be one of {list(names_of())}")
        own = output.get("parameters") or {}
        if not isinstance(own, dict):
            raise invalid(f"outputs[{index}].parameters", "must be an object")
        names.append(output["name"])
        if own.get("binary_data", whole):
            binary.add(output["name"])
    return tuple(names), frozenset(binary)


def read_v2(request: Request, most: int, *, explain: bool = False) -> Asked:
    """Images in a V2 request: one tensor of image files, pixels, or the network's own input.

    Raises:
        RequestError: It holds something else.
    """
    if len(request.tensors) != 1:
        raise invalid("inputs", "must hold one tensor")
    (tensor,) = request.tensors
    check_count("inputs[0].shape", tensor.shape[0], most)
    given = read_parameters(request.parameters)
    match tensor.datatype:
        case "BYTES":
            images = _files(tensor)
        case "UINT8":
            images = _pixels(tensor)
        case "FP32":
            images = _inputs(tensor)
        case other:
            raise invalid("inputs[0].datatype", f"{KINDS}, not {other[:20]!r}")
    return Asked(images, given.neighbours, explain or given.explain, given.tolerant)


def _files(tensor: Tensor) -> list[Sent]:
    values = flat(tensor.data) if tensor.raw is None else _split(tensor.raw)
    if math.prod(tensor.shape) != tensor.shape[0] or len(values) != tensor.shape[0]:
        shape = str(tensor.shape)[:80]
        raise invalid("inputs[0].data", f"{len(values)} values do not fill the shape {shape}, which must be [n]")
    for index, value in enumerate(values):
        if not isinstance(value, str | bytes):
            raise invalid(f"inputs[0].data[{index}]", "must be the base64 text of an image file")
    return [Sent(f"inputs[0].data[{index}]", _file_or_text(value)) for index, value in enumerate(values)]


def _split(raw: bytes | memoryview) -> list[bytes]:
    """Values of a raw BYTES tensor: each has its length before it, in four bytes, little end first."""
    values, at = [], 0
    while at + 4 <= len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            break
        values.append(bytes(raw[at : at + size]))
        at += size
    else:
        if at == len(raw):
            return values
    raise invalid("inputs[0].data", "the raw BYTES tensor ends within a value; each needs its length before it")


def _file_or_text(value: str | bytes) -> str | bytes:
    """A file's bytes as they are; bytes that are base64 text as text."""
    if isinstance(value, bytes) and value[:64].isascii() and not value.startswith((b"\x89", b"\xff", b"GIF8", b"BM")):
        text = value.decode("latin-1")
        if text[:64].isprintable() and not text.startswith(("II*", "MM", "RIFF", "P5", "P6")):
            return text
    return value


def _pixels(tensor: Tensor) -> list[Sent]:
    shape = tensor.shape
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 3):
        raise invalid("inputs[0].shape", f"must be [n, h, w] or [n, h, w, 3] for UINT8, not {str(shape)[:80]}")
    try:
        # bytes() refuses what is no integer in 0..255, which numpy would round or widen
        values = bytes(flat(tensor.data)) if tensor.raw is None else tensor.raw
    except (TypeError, ValueError) as error:
        raise invalid("inputs[0].data", "must be whole numbers in 0..255") from error
    _check_filled(len(values), tensor)
    images = np.frombuffer(values, np.uint8).reshape(shape)
    return [Sent(f"inputs[0].data[{index}]", image) for index, image in enumerate(images)]


def _inputs(tensor: Tensor) -> list[Sent]:
    if len(tensor.shape) != 4 or tensor.shape[1] != 3:
        raise invalid("inputs[0].shape", f"must be [n, 3, s, s] for FP32, not {str(tensor.shape)[:80]}")
    if tensor.raw is None:
        given = flat(tensor.data)
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
            raise invalid("inputs[0].data", "must be numbers")
        _check_filled(len(given), tensor)
        try:
            values = np.array(given, dtype=np.float64).astype(np.float32)
        except OverflowError as error:
            raise invalid("inputs[0].data", "must be numbers that float32 holds") from error
    else:
        if len(tensor.raw) % BYTES_A_VALUE["FP32"]:
            raise invalid("inputs[0].data", "the raw FP32 tensor ends within a value of four bytes")
        values = np.frombuffer(tensor.raw, "<f4").astype(np.float32)
        _check_filled(len(values), tensor)
    if not (np.abs(values) <= LARGEST_INPUT).all():  # NaN is within no bound
        raise invalid("inputs[0].data", f"must be numbers within +-{LARGEST_INPUT}, as normalised pixels are; no NaN")
    images = values.reshape(tensor.shape)
    return [Sent(f"inputs[0].data[{index}]", image) for index, image in enumerate(images)]


def _check_filled(count: int, tensor: Tensor) -> None:
    if count != math.prod(tensor.shape):
        raise invalid("inputs[0].data", f"{count} values do not fill the shape {str(tensor.shape)[:80]}")


def flat(data: list[Any] | None, depth: int = 4) -> list[Any]:
    """Values of a tensor in row-major order; V2 allows them nested like the shape or flat."""
    data = data or []
    while depth and data and all(isinstance(part, list) for part in data):
        data, depth = list(itertools.chain.from_iterable(data)), depth - 1
    return data
