"""A bundle at work: its images are prepared in threads, batched among themselves, and decided."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from scanloop.archive.jpeg import jpeg_size
from scanloop.bundle.predict import Bundle
from serving.asked import Answer, Asked, Sent
from serving.batching import Batcher, Pending, Prepared
from serving.deciding import Decider, Found, Metadata
from serving.rejection import RequestError

Made = TypeVar("Made")

QUICK_BYTES, QUICK_PIXELS = 64 << 10, 1 << 19


class RetiredError(Exception):
    """Another bundle has taken this one's place before the request began."""


@dataclass(frozen=True)
class Work:
    """How a server works.

    Attributes:
        batch: Images a forward pass.
        delay_seconds: How long a batch waits to fill up.
        passes: Forward passes at a time.
        decoders: Images that are decoded at a time.
    """

    batch: int
    delay_seconds: float
    passes: int
    decoders: int


class Loaded:
    """One bundle, with threads of its own: what it is asked for is answered by it alone, whatever comes after it."""

    def __init__(self, bundle: Bundle, work: Work, metadata: Metadata | None = None) -> None:
        self.bundle = bundle
        self.small_batch = max(1, work.batch // 4)
        self._decoders = ThreadPoolExecutor(work.decoders, thread_name_prefix="decode")
        self._decider = Decider(bundle, metadata)
        self._batcher: Batcher[Found] = Batcher(self._decider.run, work.batch, work.delay_seconds, work.passes)
        self._leases, self._retired = 0, False
        self._free = threading.Condition()
        self._decider.warm_up(work.batch)

    async def find(self, asked: Asked) -> list[Found]:
        """What the bundle says of a request's images.

        Raises:
            RequestError: One of them cannot be read, and the request does not bear that.
            RetiredError: It answers nothing more.
        """
        pending: Pending[Found] = Pending.of(len(asked.images), asyncio.get_running_loop())
        with self.lease():
            if is_quick(asked):
                self._prepare_all(asked, pending)
            else:
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
        self._decider.close()

    def _prepare_all(self, asked: Asked, pending: Pending[Found]) -> None:
        # One after the other, so that a request holds a single decoded image, however large, next to its small inputs.
        for index, sent in enumerate(asked.images):
            if pending.abandoned:
                return
            try:
                prepared = self._decider.prepare(sent)
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
        return self._decider.prepare(sent)

    def answer(self, found: Sequence[Found], neighbours: int = 0) -> Answer:
        """A request's answer from what was found."""
        return self._decider.answer(found, neighbours)


def is_quick(asked: Asked) -> bool:
    """Whether a request is read sooner than a thread wakes up: one small JPEG, half a millisecond on the event loop."""
    (first, *others) = asked.images
    if others or not isinstance(first.content, str | bytes) or len(first.content) > QUICK_BYTES:
        return False
    try:
        size = jpeg_size(first.file())
    except RequestError:
        return False
    return size is not None and size[0] * size[1] <= QUICK_PIXELS
