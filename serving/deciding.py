"""What one bundle makes of images: from what was sent to what the engine takes, and from its outputs to an answer.

The model server and the handler of TorchServe differ in how batches come about; this they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import numpy as np

from scanloop.archive.decode import check_size
from scanloop.archive.dicom.reader import DicomReader, is_dicom
from scanloop.bundle.decisions import Decisions, decide
from scanloop.bundle.engines.paired import networks_of
from scanloop.bundle.predict import Bundle
from scanloop.errors import ImageError
from scanloop.types import Image
from serving.asked import Answer, Row, Sent
from serving.batching import Prepared
from serving.rejection import RequestError, invalid

BAD_IMAGE = "bad_image"


@dataclass(frozen=True)
class Found:
    """One image's row of a batch's decisions, or the fault that kept it out of any."""

    decisions: Decisions | None
    row: int
    fault: RequestError | None = None


class Metadata(Protocol):
    """Knows more of slices than their labels."""

    def of(self, slice_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """What is known of each, None where nothing is."""


class Decider:
    """Prepares, runs and decides; safe to call from several threads at once.

    Args:
        bundle: Read and checked.
        metadata: Is asked about the exemplars that an answer points to; None where there is no feature repository.
    """

    def __init__(self, bundle: Bundle, metadata: Metadata | None = None) -> None:
        self.bundle, self._metadata = bundle, metadata
        self._dicom = DicomReader(bundle.min_side_px, bundle.max_pixels, bundle.preprocess.archive_px)

    def warm_up(self, most: int) -> None:
        """Every batch size once on each network: engines prepare each shape when it first comes."""
        side = self.bundle.preprocess.input_px
        for network in networks_of(self.bundle.engine):
            for count in range(1, most + 1):
                network.run_squares(np.zeros((count, side, side, 3), np.uint8))

    def close(self) -> None:
        """End the process that reads DICOM objects."""
        self._dicom.close()

    def prepare(self, sent: Sent) -> Prepared:
        """One image as the network takes it.

        Raises:
            RequestError: It cannot be read, or is beyond a limit.
        """
        preprocess = self.bundle.preprocess
        if sent.is_input:
            wanted = (3, preprocess.input_px, preprocess.input_px)
            assert isinstance(sent.content, np.ndarray)
            if sent.content.shape != wanted:
                raise invalid(sent.field, f"must have the shape [n, {', '.join(map(str, wanted))}] for FP32")
            return sent.content
        try:
            return preprocess.square(self._decoded(sent))
        except ImageError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, error.reason, f"{sent.field}: {error}") from error

    def _decoded(self, sent: Sent) -> Image:
        if isinstance(sent.content, np.ndarray):
            limits = {"min_side_px": self.bundle.min_side_px, "max_pixels": self.bundle.max_pixels}
            check_size(sent.content.shape[0], sent.content.shape[1], **limits)
            return sent.content  # type: ignore[return-value]  # uint8: floats are the network's own input
        payload = sent.file()
        if is_dicom(payload):
            return self._dicom.read(payload, sent.frame)
        if sent.frame is not None:
            raise ImageError("unsupported", "only a DICOM object has frames; leave 'frame' out")
        return self.bundle.decode(payload)

    def run(self, images: Prepared) -> Sequence[Found]:
        """What the bundle says of a batch: uint8 (n, s, s, 3), or float32 (n, 3, s, s)."""
        engine = self.bundle.engine
        outputs = engine.run_squares(images) if images.dtype == np.uint8 else engine.run_inputs(images)  # type: ignore[arg-type]
        decisions = decide(self.bundle, outputs)
        return [Found(decisions, row) for row in range(len(images))]

    def answer(self, found: Sequence[Found], neighbours: int = 0) -> Answer:
        """A request's answer from what was found."""
        bundle = self.bundle
        rows = [self._row(one, neighbours) for one in found]
        return Answer(bundle.classes, bundle.digest, str(bundle.about["data_digest"]), bundle.points.default, rows)

    def _row(self, found: Found, neighbours: int) -> Row:
        classes, decisions, row = self.bundle.classes, found.decisions, found.row
        if decisions is None:
            assert found.fault is not None
            nothing, all_of_them = np.zeros(len(classes)), np.ones(len(classes), dtype=bool)
            listed: list[dict[str, object]] | None = [] if neighbours else None
            return Row(nothing, "", 0.0, all_of_them, BAD_IMAGE, None, listed, fault=str(found.fault.detail))
        label = int(decisions.labels[row])
        probabilities = decisions.probabilities[row]
        strangeness = None if decisions.strangeness is None else float(decisions.strangeness[row])
        return Row(
            probabilities,
            classes[label],
            float(probabilities[label]),
            decisions.members[row],
            decisions.reasons[row],
            strangeness,
            self._neighbours(found, neighbours) if neighbours else None,
        )

    def _neighbours(self, found: Found, count: int) -> list[dict[str, Any]]:
        assert found.decisions is not None
        if found.decisions.embeddings is None:
            return []
        one = found.decisions.embeddings[found.row : found.row + 1]
        ids, labels, distances = (values[0].tolist() for values in self.bundle.exemplars.nearest(one, count))
        known = self._metadata.of(ids) if self._metadata else [None] * len(ids)
        return [
            {"slice_id": slice_id, "label": self.bundle.classes[label], "distance": distance}
            | ({} if facts is None else {"known": facts})
            for slice_id, label, distance, facts in zip(ids, labels, distances, known, strict=True)
        ]
