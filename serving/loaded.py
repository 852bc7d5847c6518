"""A bundle at work: its images are prepared in threads, batched among themselves, and decided."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from scanloop.archive.decode import check_size
from scanloop.archive.dicom.reader import DicomReader, is_dicom
from scanloop.bundle.decisions import Decisions, decide
from scanloop.bundle.predict import Bundle
from scanloop.errors import ImageError
from scanloop.types import Image
from serving.asked import Answer, Asked, Row, Sent
from serving.batching import Batcher, Pending, Prepared
from serving.rejection import RequestError, invalid

BAD_IMAGE = "bad_image"

Made = TypeVar("Made")


class RetiredError(Exception):
    """Another bundle has taken this one's place before the request began."""


@dataclass(frozen=True)
class Found:
    """One image's row of a batch's decisions, or the fault that kept it out of any."""

    decisions: Decisions | None
    row: int
    fault: RequestError | None = None


@dataclass(frozen=True)
class Work:
    """How a server works.

    Attributes:
        batch: Images a forward pass.
        delay_seconds: How long a batch waits to fill up.
        engines: Forward passes at a time.
        decoders: Images that are decoded at a time.
    """

    batch: int
    delay_seconds: float
    engines: int
    decoders: int


class Loaded:
    """One bundle, with threads of its own: what it is asked for is answered by it alone, whatever comes after it."""

    def __init__(self, bundle: Bundle, work: Work) -> None:
        self.bundle = bundle
        self.small_batch = max(1, work.batch // 4)
        self._decoders = ThreadPoolExecutor(work.decoders, thread_name_prefix="decode")
        self._batcher: Batcher[Found] = Batcher(self._run, work.batch, work.delay_seconds, work.engines)
        self._dicom = DicomReader(bundle.min_side_px, bundle.max_pixels, bundle.preprocess.archive_px)
        self._leases, self._retired = 0, False
        self._free = threading.Condition()
        self._warm_up(work.batch)

    def _warm_up(self, most: int) -> None:
        """Every batch size once: engines prepare each shape when it first comes."""
        side = self.bundle.preprocess.input_px
        for count in range(1, most + 1):
            self._run(np.zeros((count, side, side, 3), np.uint8))

    async def find(self, asked: Asked) -> list[Found]:
        """What the bundle says of a request's images.

        Raises:
            RequestError: One of them cannot be read, and the request does not bear that.
            RetiredError: It answers nothing more.
        """
        pending: Pending[Found] = Pending.of(len(asked.images), asyncio.get_running_loop())
        with self.lease():
            self._decoders.submit(self._prepare_all, asked, pending)
            return await pending.done

    async def run(self, images: Sequence[Prepared]) -> list[Found]:
        """What the bundle says of images that are prepared; for who holds a lease."""
        pending: Pending[Found] = Pending.of(len(images), asyncio.get_running_loop())
        self._batcher.put_all(images, pending)
        return await pending.done

    async def aside(self, work: Callable[[], Made]) -> Made:
        """What some work gives, done by a thread that decodes; for who holds a lease."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keep the bundle at work while the block runs.

        Raises:
            RetiredError: It answers nothing more.
        """
        with self._free:
            if self._retired:
                raise RetiredError
            self._leases += 1
        try:
            yield
        finally:
            with self._free:
                self._leases -= 1
                self._free.notify_all()

    def retire(self) -> None:
        """Answer what was asked, then let go of threads and memory; blocks until then."""
        with self._free:
            self._retired = True
            self._free.wait_for(lambda: self._leases == 0)
        self._decoders.shutdown()
        self._batcher.close()
        self._dicom.close()

    def _prepare_all(self, asked: Asked, pending: Pending[Found]) -> None:
        # One after the other, so that a request holds a single decoded image, however large, next to its small inputs.
        for index, sent in enumerate(asked.images):
            if pending.abandoned:
                return
            try:
                prepared = self.prepare(sent)
            except RequestError as error:
                if not asked.tolerant:
                    pending.fail(error)
                    return
                pending.answer(index, Found(None, 0, error))
                continue
            except Exception as error:
                pending.fail(error)
                return
            self._batcher.put(prepared, pending, index)

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

    def _run(self, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Sequence[Found]:
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
        return [
            {"slice_id": slice_id, "label": self.bundle.classes[label], "distance": distance}
            for slice_id, label, distance in zip(ids, labels, distances, strict=True)
        ]
