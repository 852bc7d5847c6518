"""V2's answers over HTTP, in JSON or with raw tensors behind it, and the facts that gRPC tells as well."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import orjson

from serving.asked import Answer
from serving.tensors import Column, columns_of
from serving.v2 import Request


def answer_v2(answer: Answer, name: str, request: Request) -> tuple[bytes, int | None]:
    """V2's answer: its body, and how much of that is JSON where raw tensors follow."""
    outputs, raw = [], []
    for column in wanted_columns(answer, request.outputs):
        stated: dict[str, Any] = {"name": column.name, "datatype": column.datatype, "shape": list(column.shape)}
        if request.binary is None or column.name in request.binary:
            raw.append(column.raw())
            stated["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            stated["data"] = _json_values(column)
        outputs.append(stated)
    head = orjson.dumps(facts_of(answer, name, request.id) | {"outputs": outputs})
    return (head, None) if not raw else (head + b"".join(raw), len(head))


def facts_of(answer: Answer, name: str, identity: str | None) -> dict[str, Any]:
    """What stands beside the outputs."""
    facts: dict[str, Any] = {"model_name": name, "model_version": answer.digest[:12]}
    if identity is not None:
        facts["id"] = identity
    parameters = {
        "model_digest": answer.digest,
        "data_digest": answer.data_digest,
        "operating_point": answer.operating_point,
        "classes": json.dumps(answer.classes, ensure_ascii=False),
    }
    return facts | {"parameters": parameters}


def wanted_columns(answer: Answer, wanted: Sequence[str]) -> list[Column]:
    """The outputs that a request asks for; all where it names none."""
    return [column for column in columns_of(answer) if not wanted or column.name in wanted]


def _json_values(column: Column) -> list[Any]:
    values = column.values.ravel().tolist()
    return [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in values]
