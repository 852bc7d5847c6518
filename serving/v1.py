"""V1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol."""

import base64
from typing import Any

from serving.asked import Answer, Asked, Row, Sent, check_count, read_parameters
from serving.rejection import EXAMPLE_V1, invalid


def read_v1(body: object, most: int, *, explain: bool = False) -> Asked:
    """Images in a V1 body, `{"instances": [...]}`; each instance is {"image": {"b64": text}} or {"b64": text}.

    Args:
        body: Parsed JSON.
        most: Images a request.
        explain: Whether the endpoint is `:explain`.

    Raises:
        RequestError: The body is something else.
    """
    if not isinstance(body, dict):
        raise invalid("body", f"must be a JSON object, {EXAMPLE_V1}")
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise invalid("instances", f"must be a list of at least one image, {EXAMPLE_V1}")
    check_count("instances", len(instances), most)
    given = read_parameters(body.get("parameters"))
    images = [_instance(f"instances[{index}]", instance) for index, instance in enumerate(instances)]
    return Asked(images, given.neighbours, explain or given.explain, given.tolerant)


def _instance(field: str, instance: object) -> Sent:
    if isinstance(instance, dict) and "image" in instance:
        field, instance = f"{field}.image", instance["image"]
    if not isinstance(instance, dict) or not isinstance(instance.get("b64"), str):
        raise invalid(f"{field}.b64", f"must be the base64 text of an image file, {EXAMPLE_V1}")
    frame = instance.get("frame")
    if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int) or frame < 0):
        raise invalid(f"{field}.frame", "must be a whole number from 0")
    return Sent(f"{field}.b64", instance["b64"], frame)


def answer_v1(answer: Answer) -> dict[str, Any]:
    """V1's body: one prediction an image."""
    return {"predictions": [_prediction(answer, row) for row in answer.rows]}


def _prediction(answer: Answer, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": row.label,
        "confidence": row.confidence,
        "probabilities": dict(zip(answer.classes, row.probabilities.tolist(), strict=True)),
        "set": [name for name, inside in zip(answer.classes, row.members.tolist(), strict=True) if inside],
        "abstained": row.abstained,
        "strangeness": row.strangeness,
        "operating_point": answer.operating_point,
        "model_digest": answer.digest,
        "data_digest": answer.data_digest,
    }
    if row.neighbours is not None:
        found["neighbours"] = row.neighbours
    if row.heat_map is not None:
        found["heat_map"] = {"b64": base64.b64encode(row.heat_map).decode(), "media_type": "image/png"}
    if row.fault is not None:
        found["fault"] = row.fault
    return found
