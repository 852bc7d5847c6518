"""What runs in TorchServe's worker: no envelope, V1 and V2 by the server's own code, one answer a request of the batch.

TorchServe demands exactly one class here.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.read import read_bundle
from scanloop.bundle.torchserve import BUNDLE, FACTS
from serving.asked import Asked
from serving.batching import Prepared
from serving.deciding import Decider, Found
from serving.rejection import RequestError, invalid
from serving.v1 import answer_v1, read_v1
from serving.v2 import Request, read_json, read_v2
from serving.v2_answer import answer_v2

logger = logging.getLogger("scanloop.serving")

HEADER_BYTES = "inference-header-content-length"
"""Request and response header that says where JSON ends and raw tensors begin."""

MOST_DIGITS = 12
JSON, BINARY = "application/json", "application/octet-stream"


class Handler:
    """TorchServe's handler over one bundle."""

    def initialize(self, context: Any) -> None:
        """Read the bundle in the archive, check it against its reference images, and warm it up.

        Args:
            context: TorchServe's: where the archive was unpacked, and the size of a batch.

        Raises:
            BundleError: The bundle is not whole, or this machine gives its reference images other probabilities.
            ConfigError: The engine is not installed, or does not compute in this precision.
        """
        self._name: str = context.model_name
        folder = Path(context.system_properties["model_dir"])
        served = json.loads((folder / FACTS).read_bytes())
        self._most_images, self._most = int(served["max_images"]), int(context.system_properties["batch_size"])
        wanted = Wanted(served["engine"], served["precision"], served["threads"])
        self._decider = Decider(read_bundle(folder / BUNDLE, wanted))
        self._decider.warm_up(self._most)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answers of a batch of requests, each with a status of its own.

        Args:
            data: One a request, its body under "body" or "data": bytes, or JSON that TorchServe has parsed.
            context: TorchServe's; takes each answer's status and headers.
        """
        asked: list[tuple[Asked, Request | None] | RequestError] = []
        images: list[list[Prepared | RequestError]] = []
        for index, row in enumerate(data):
            try:
                one = self._read(row, context, index)
                images.append(self._prepare(one[0]))
                asked.append(one)
            except Exception as error:
                del images[len(asked) :]
                images.append([])
                asked.append(_refusal(error))
        context.metrics.add_counter("scanloop_handler_batches_total", 1)
        context.metrics.add_counter("scanloop_handler_requests_total", len(data))
        found = self._find(images)
        return [
            self._answer(one, part, context, index) for index, (one, part) in enumerate(zip(asked, found, strict=True))
        ]

    def _read(self, row: Mapping[str, Any], context: Any, index: int) -> tuple[Asked, Request | None]:
        """What a request asks for; its V2 request where it is one."""
        body = row.get("body", row.get("data"))
        payload = bytes(body) if isinstance(body, bytes | bytearray) else orjson.dumps(body)
        headers = {
            name.lower(): value
            for name, value in context.get_all_request_header(index).items()
            if isinstance(value, str)
        }
        stated = headers.get(HEADER_BYTES)
        if stated is not None and (not stated.isdecimal() or len(stated) > MOST_DIGITS):
            raise invalid(HEADER_BYTES, "must be a whole number of bytes")
        head = payload if stated is None else payload[: int(stated)]
        try:
            parsed = orjson.loads(head)
        except orjson.JSONDecodeError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, "broken_json", f"the body is not JSON: {error}") from error
        if isinstance(parsed, dict) and "inputs" in parsed:
            request = read_json(payload, None if stated is None else int(stated))
            asked, v2 = read_v2(request, self._most_images), request
        else:
            asked, v2 = read_v1(parsed, self._most_images), None
        if asked.explain:
            raise invalid("parameters.explain", "TorchServe's handler draws no heat maps; ask the model server")
        return asked, v2

    def _prepare(self, asked: Asked) -> list[Prepared | RequestError]:
        prepared: list[Prepared | RequestError] = []
        for sent in asked.images:
            try:
                prepared.append(self._decider.prepare(sent))
            except RequestError as error:
                if not asked.tolerant:
                    raise
                prepared.append(error)
        return prepared

    def _find(self, images: Sequence[Sequence[Prepared | RequestError]]) -> list[list[Found]]:
        """What the bundle says of every image of every request, in as few forward passes as their kinds allow."""
        found: dict[tuple[int, int], Found] = {}
        kinds: dict[Any, list[tuple[int, int]]] = {}
        for request, some in enumerate(images):
            for place, image in enumerate(some):
                if isinstance(image, RequestError):
                    found[request, place] = Found(None, 0, image)
                else:
                    kinds.setdefault(image.dtype.str, []).append((request, place))
        for places in kinds.values():
            for start in range(0, len(places), self._most):
                batch = places[start : start + self._most]
                results = self._decider.run(np.stack([images[request][place] for request, place in batch]))  # type: ignore[arg-type, misc]  # all of one kind
                found |= dict(zip(batch, results, strict=True))
        return [[found[request, place] for place in range(len(some))] for request, some in enumerate(images)]

    def _answer(
        self, asked: tuple[Asked, Request | None] | RequestError, found: Sequence[Found], context: Any, index: int
    ) -> bytes:
        context.set_response_content_type(index, JSON)
        if isinstance(asked, RequestError):
            context.set_response_status(code=asked.status_code, idx=index)
            return orjson.dumps({"error": asked.detail})
        one, request = asked
        answer = self._decider.answer(found, one.neighbours)
        if request is None:
            return orjson.dumps(answer_v1(answer))
        body, json_bytes = answer_v2(answer, self._name, request)
        if json_bytes is not None:
            context.set_response_content_type(index, BINARY)
            context.set_response_header(index, HEADER_BYTES, str(json_bytes))
        return body


def _refusal(error: Exception) -> RequestError:
    """A request's own fault; ours is in the log, and fails that request alone."""
    if isinstance(error, RequestError):
        return error
    logger.error("a request failed", exc_info=error)
    detail = "internal error; the server's log says more"
    return RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)
