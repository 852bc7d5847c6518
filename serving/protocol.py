"""The two protocols: requests to images, probabilities to answers.

V1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
V2: the Open Inference Protocol, https://github.com/kserve/open-inference-protocol
"""

import base64
import binascii
import itertools
import json
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
from kserve import InferOutput, InferRequest, InferResponse

from scanloop.types import Float, Image
from serving.rejection import EXAMPLE_V1, RequestError, invalid

INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
"""Metadata of V2's input tensor. UINT8 of shape [n, h, w] or [n, h, w, 3] is taken as well."""


@dataclass(frozen=True)
class Sent:
    """One image as it was sent.

    Attributes:
        field: Where it stands in the request, for messages.
        content: Base64 text of an image file, or the pixels.
    """

    field: str
    content: str | Image

    def payload(self) -> bytes | Image:
        """The file's bytes, or the pixels.

        Raises:
            RequestError: The text is not base64.
        """
        if isinstance(self.content, np.ndarray):
            return self.content
        try:
            return base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError) as error:
            problem = "a data URL" if self.content.startswith("data:") else str(error)
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "bad_base64", f"{self.field}: not plain base64 without line breaks ({problem})"
            ) from error


@dataclass(frozen=True)
class Answer:
    """What the model says of the images of one request.

    Attributes:
        classes: Names of the columns.
        probabilities: (n, classes), rows sum to 1.
        sets: (n, classes), whether each class is in the image's set.
        digest: Digest of the bundle.
    """

    classes: tuple[str, ...]
    probabilities: Float
    sets: npt.NDArray[np.bool_]
    digest: str

    def rows(self) -> Iterator[tuple[str, float]]:
        """Label and confidence of each image."""
        for row in self.probabilities:
            best = int(row.argmax())
            yield self.classes[best], float(row[best])


def read_v1(body: object, max_images: int) -> list[Sent]:
    """Images in a V1 body, `{"instances": [...]}`; each instance is {"image": {"b64": text}} or {"b64": text}.

    Raises:
        RequestError: The body is something else.
    """
    if not isinstance(body, dict):
        raise invalid("body", f"must be a JSON object, {EXAMPLE_V1}")
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise invalid("instances", f"must be a list of at least one image, {EXAMPLE_V1}")
    _check_count("instances", len(instances), max_images)
    return [_instance(f"instances[{index}]", instance) for index, instance in enumerate(instances)]


def _instance(field: str, instance: object) -> Sent:
    if isinstance(instance, dict) and "image" in instance:
        field, instance = f"{field}.image", instance["image"]
    if not isinstance(instance, dict) or not isinstance(instance.get("b64"), str):
        raise invalid(f"{field}.b64", f"must be the base64 text of an image file, {EXAMPLE_V1}")
    return Sent(f"{field}.b64", instance["b64"])


def read_v2(request: InferRequest, max_images: int) -> list[Sent]:
    """Images in a V2 request: one BYTES tensor of base64 texts, or one UINT8 tensor of pixels.

    Raises:
        RequestError: It holds something else, or asks for outputs that do not exist.
    """
    _check_outputs(request)
    if len(request.inputs) != 1:
        raise invalid("inputs", f"must hold one tensor, not {len(request.inputs)}")
    (tensor,) = request.inputs
    shape = tensor.shape
    if not shape or min(shape) < 1:
        raise invalid("inputs[0].shape", f"must be positive, not {str(shape)[:80]}")
    _check_count("inputs[0].shape", shape[0], max_images)
    match tensor.datatype:
        case "BYTES":
            return _texts(tensor.data, shape)
        case "UINT8":
            return _pixels(tensor.data, shape)
    raise invalid("inputs[0].datatype", f"must be BYTES (base64 of image files) or UINT8, not {tensor.datatype[:20]!r}")


def _check_outputs(request: InferRequest) -> None:
    wanted = request.request_outputs or []
    known = [output["name"] for output in outputs_of(0)]
    for index, output in enumerate(wanted):
        if output.name not in known:
            raise invalid(f"outputs[{index}].name", f"must be one of {known}")
    if request.use_binary_outputs or any(output.binary_data for output in wanted):
        raise invalid("outputs", "binary tensors are not sent; leave out binary_data and binary_data_output")


def _check_count(field: str, count: int, max_images: int) -> None:
    if count > max_images:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too_many_images",
            f"{field}: {count} images; at most {max_images} a request",
        )


def _texts(data: list[Any], shape: list[int]) -> list[Sent]:
    texts = _flat(data)
    if math.prod(shape) != shape[0] or len(texts) != shape[0]:
        raise invalid(
            "inputs[0].data", f"{len(texts)} values do not fill the shape {str(shape)[:80]}, which must be [n]"
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise invalid(f"inputs[0].data[{index}]", "must be the base64 text of an image file")
    return [Sent(f"inputs[0].data[{index}]", text) for index, text in enumerate(texts)]


def _pixels(data: list[Any], shape: list[int]) -> list[Sent]:
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 3):
        raise invalid("inputs[0].shape", f"must be [n, h, w] or [n, h, w, 3] for UINT8, not {str(shape)[:80]}")
    try:
        values = bytes(_flat(data))  # refuses what is no integer in 0..255, which numpy would round or widen
    except (TypeError, ValueError) as error:
        raise invalid("inputs[0].data", "must be whole numbers in 0..255") from error
    if len(values) != math.prod(shape):
        raise invalid("inputs[0].data", f"{len(values)} values do not fill the shape {str(shape)[:80]}")
    images = np.frombuffer(values, np.uint8).reshape(shape)
    return [Sent(f"inputs[0].data[{index}]", image) for index, image in enumerate(images)]


def _flat(data: list[Any], depth: int = 4) -> list[Any]:
    """Values of a tensor in row-major order; V2 allows them nested like the shape or flat."""
    while depth and data and all(isinstance(part, list) for part in data):
        data, depth = list(itertools.chain.from_iterable(data)), depth - 1
    return data


def answer_v1(answer: Answer) -> dict[str, Any]:
    """V1's body: one prediction an image."""
    return {
        "predictions": [
            {
                "label": label,
                "confidence": confidence,
                "probabilities": dict(zip(answer.classes, row.tolist(), strict=True)),
                "set": [name for name, inside in zip(answer.classes, members, strict=True) if inside],
                "model_digest": answer.digest,
            }
            for (label, confidence), row, members in zip(answer.rows(), answer.probabilities, answer.sets, strict=True)
        ]
    }


def answer_v2(answer: Answer, name: str, request: InferRequest) -> InferResponse:
    """V2's answer: tensors `probabilities` and `set` ([n, classes]), `label` and `confidence` ([n])."""
    labels, confidences = zip(*answer.rows(), strict=True)
    columns: dict[str, Any] = {
        "probabilities": answer.probabilities,
        "label": np.array(labels, dtype=np.object_),
        "confidence": np.array(confidences),
        "set": answer.sets,
    }
    return InferResponse(
        response_id=request.id or uuid.uuid4().hex,
        model_name=name,
        model_version=answer.digest[:12],
        infer_outputs=[
            InferOutput(
                output["name"], list(columns[output["name"]].shape), output["datatype"], columns[output["name"]]
            )
            for output in outputs_of(len(answer.classes))
        ],
        parameters={"model_digest": answer.digest, "classes": json.dumps(answer.classes, ensure_ascii=False)},
        requested_outputs=request.request_outputs,
    )


def outputs_of(classes: int) -> Sequence[dict[str, Any]]:
    """Metadata of V2's output tensors."""
    return [
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, classes]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "confidence", "datatype": "FP64", "shape": [-1]},
        {"name": "set", "datatype": "BOOL", "shape": [-1, classes]},
    ]
