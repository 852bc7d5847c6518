"""Requests to a model server and its answers, in KServe's V1 and in V2 with raw tensors."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scanloop.scoring.rows import Scored

Protocol = Literal["v1", "v2"]
HEADER_BYTES = "Inference-Header-Content-Length"
TOLERANT = {"bad_images": "abstain"}

_NUMPY = {"FP64": "<f8", "FP32": "<f4", "BOOL": "?"}


@dataclass(frozen=True)
class Post:
    """A request: where below the server, its headers, its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def new_post(protocol: Protocol, name: str, payloads: Sequence[bytes]) -> Post:
    """A request for predictions of image files; images that cannot be read are abstained from.

    V1 writes base64, a third more bytes; V2 sends the files as they are.
    """
    if protocol == "v1":
        instances = [{"image": {"b64": base64.b64encode(payload).decode()}} for payload in payloads]
        body = json.dumps({"instances": instances, "parameters": TOLERANT}).encode()
        return Post(f"v1/models/{name}:predict", {"Content-Type": "application/json"}, body)
    raw = b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(payloads)]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": TOLERANT | {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_BYTES: str(len(head))}
    return Post(f"v2/models/{name}/infer", headers, head + raw)


def read_answer(protocol: Protocol, body: bytes, header_bytes: str | None, uris: Sequence[str]) -> list[Scored]:
    """Rows of an answer, one a uri.

    Raises:
        ValueError: The body is no such answer, or one of other images.
    """
    try:
        rows = _v1(body) if protocol == "v1" else _v2(body, header_bytes)
        if len(rows) != len(uris):
            raise ValueError(f"{len(rows)} answers to {len(uris)} images")
        return [make(uri) for make, uri in zip(rows, uris, strict=True)]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"it is no answer of a model server of scanloop ({error!r})") from error


def _v1(body: bytes) -> list[Callable[[str], Scored]]:
    return [_maker(one) for one in json.loads(body)["predictions"]]


def _maker(said: Mapping[str, Any]) -> Callable[[str], Scored]:
    if said.get("fault"):
        return lambda uri: Scored(
            uri, abstained=said["abstained"], fault=str(said["fault"]), model_digest=said["model_digest"]
        )
    probabilities = {str(name): float(value) for name, value in said["probabilities"].items()}
    strangeness = said.get("strangeness")
    return lambda uri: Scored(
        uri,
        label=str(said["label"]),
        confidence=float(said["confidence"]),
        probabilities=probabilities,
        members=[str(name) for name in said["set"]],
        abstained=said.get("abstained"),
        strangeness=None if strangeness is None else float(strangeness),
        model_digest=str(said["model_digest"]),
    )


def _v2(body: bytes, header_bytes: str | None) -> list[Callable[[str], Scored]]:
    length = len(body) if header_bytes is None else int(header_bytes)
    stated, at = json.loads(body[:length]), length
    columns: dict[str, list[Any]] = {}
    for output in stated["outputs"]:
        size = output["parameters"]["binary_data_size"]
        columns[output["name"]] = _values(output["datatype"], output["shape"], body[at : at + size])
        at += size
    classes, digest = json.loads(stated["parameters"]["classes"]), stated["parameters"]["model_digest"]
    makers = []
    for row in range(len(columns["label"])):
        said = {name: values[row] for name, values in columns.items()}
        strangeness = said["strangeness"]
        said |= {
            "probabilities": dict(zip(classes, said["probabilities"], strict=True)),
            "set": [name for name, inside in zip(classes, said["set"], strict=True) if inside],
            "abstained": said["abstained"] or None,
            "strangeness": None if strangeness < 0 else strangeness,  # JSON has no null in a tensor
            "model_digest": digest,
        }
        makers.append(_maker(said))
    return makers


def _values(datatype: str, shape: Sequence[int], raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        values: list[Any] = np.frombuffer(raw, _NUMPY[datatype]).reshape(shape).tolist()
        return values
    texts, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    if len(texts) != math.prod(shape) or at != len(raw):
        raise ValueError("a tensor of texts ends within one")
    return texts
