"""The bundle as a KServe model: read, decide, answer, without ever blocking the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import numpy as np
from kserve import InferRequest, InferResponse, Model

from scanloop.archive.decode import check_size
from scanloop.bundle.predict import Bundle, Inputs
from scanloop.errors import ImageError
from serving.metrics import count_prediction
from serving.protocol import INPUTS, Answer, Sent, answer_v1, answer_v2, outputs_of, read_v1, read_v2
from serving.rejection import RequestError


class Classifier(Model):  # type: ignore[misc]  # kserve ships no usable types
    """One bundle under one name.

    Args:
        name: Name in the URLs.
        bundle: Read and checked.
        max_batch: Most images a request; they go through the network together.
        workers: Requests that are decoded and classified at the same time; others wait.
    """

    def __init__(self, name: str, bundle: Bundle, max_batch: int, workers: int) -> None:
        super().__init__(name)
        self.bundle = bundle
        self.max_batch = max_batch
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="classify")
        self.ready = True  # reading the bundle has run its reference slices

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of the input tensor."""
        return INPUTS

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of the output tensors."""
        return list(outputs_of(len(self.bundle.classes)))

    def validate(self, payload: object) -> object:
        """The payload as it is: `read_v1` and `read_v2` say what is wrong with it, and with which field."""
        return payload

    async def predict(self, payload: object, _headers: dict[str, str] | None = None) -> dict[str, Any] | InferResponse:
        """Answer of a V1 body or a V2 request, in the same protocol.

        Raises:
            RequestError: Something about the request is wrong; nothing of it is answered.
        """
        answer = await asyncio.get_running_loop().run_in_executor(self.pool, self._classify, payload)
        for label, confidence in answer.rows():
            count_prediction(label, confidence)
        return answer_v2(answer, self.name, payload) if isinstance(payload, InferRequest) else answer_v1(answer)

    def _classify(self, payload: object) -> Answer:
        read = read_v2 if isinstance(payload, InferRequest) else read_v1
        images = read(payload, self.max_batch)
        # One at a time, so that a request holds a single decoded image, however large, next to its small inputs.
        inputs = np.concatenate([self._prepare(image) for image in images])
        probabilities = self.bundle.predict_inputs(inputs)
        sets = self.bundle.conformal.sets(probabilities)
        return Answer(self.bundle.classes, probabilities, sets, self.bundle.digest)

    def _prepare(self, sent: Sent) -> Inputs:
        content = sent.payload()
        try:
            if isinstance(content, bytes):
                return self.bundle.preprocess_one(self.bundle.decode(content))
            limits = {"min_side_px": self.bundle.min_side_px, "max_pixels": self.bundle.max_pixels}
            check_size(content.shape[0], content.shape[1], **limits)
            return self.bundle.preprocess_one(content)
        except ImageError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, error.reason, f"{sent.field}: {error}") from error
