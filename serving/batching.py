"""Batches made of whatever waits: a free engine takes at once all there is, so nobody waits for a batch to fill."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from serving.metrics import BATCH_IMAGES, QUEUE_DEPTH

logger = logging.getLogger("scanloop.serving")

Prepared = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""One image as an engine takes it: uint8 (s, s, 3), or float32 (3, s, s)."""

Result = TypeVar("Result")


@dataclass
class Pending(Generic[Result]):
    """The images of one request, until all of them are answered.

    Attributes:
        loop: Where the request is waited for.
        done: Gets the results, in the images' order, or the first fault.
    """

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[Result]]
    results: list[Result | None]
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, count: int, loop: asyncio.AbstractEventLoop) -> "Pending[Result]":
        """A request of so many images."""
        return cls(loop, loop.create_future(), [None] * count, count)

    def answer(self, index: int, result: Result) -> None:
        """Keep one image's result; from any thread."""
        with self.lock:
            self.results[index] = result
            self.left -= 1
            whole = self.left == 0
        if whole:
            self._tell(lambda: self.done.set_result(self.results))  # type: ignore[arg-type]  # none is None any more

    def fail(self, error: BaseException) -> None:
        """End the request with a fault; from any thread."""
        self._tell(lambda: self.done.set_exception(error))

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more."""
        return self.done.done()

    def _tell(self, conclude: Callable[[], None]) -> None:
        def now() -> None:
            if not self.done.done():
                conclude()

        self.loop.call_soon_threadsafe(now)


@dataclass(frozen=True)
class _Item(Generic[Result]):
    image: Prepared
    pending: Pending[Result]
    index: int
    since: float


class Batcher(Generic[Result]):
    """Threads that take what waits, as much as a batch holds, and run it.

    Args:
        run: Results of a batch of images of one kind, in their order.
        most: Images a batch.
        delay_seconds: How long a batch that is not full waits for more; 0 starts at once.
        threads: Batches at a time.
    """

    def __init__(
        self,
        run: Callable[[npt.NDArray[np.uint8] | npt.NDArray[np.float32]], Sequence[Result]],
        most: int,
        delay_seconds: float = 0.0,
        threads: int = 1,
    ) -> None:
        self._run, self._most, self._delay = run, most, delay_seconds
        self._waiting: deque[_Item[Result]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._idle = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{one}", daemon=True) for one in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, image: Prepared, pending: Pending[Result], index: int) -> None:
        """Let an image wait for a batch; from any thread."""
        with self._change:
            self._waiting.append(_Item(image, pending, index, time.monotonic()))
            QUEUE_DEPTH.set(len(self._waiting))
            self._change.notify()

    def put_all(self, images: Sequence[Prepared], pending: Pending[Result]) -> None:
        """Let all images of a request wait for one batch: a single thread is woken for them."""
        since = time.monotonic()
        with self._change:
            self._waiting.extend(_Item(image, pending, index, since) for index, image in enumerate(images))
            QUEUE_DEPTH.set(len(self._waiting))
            self._change.notify()

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            try:
                results = self._run(np.stack([item.image for item in batch]))  # type: ignore[arg-type]  # all of one kind
            except Exception as error:
                logger.exception("a batch of %d images failed", len(batch))
                for item in batch:
                    item.pending.fail(error)
                continue
            BATCH_IMAGES.observe(len(batch))
            for item, result in zip(batch, results, strict=True):
                item.pending.answer(item.index, result)

    def _take(self) -> list[_Item[Result]]:
        """The next batch, all of one kind; empty once there is none and none will come."""
        with self._change:
            while True:
                while self._waiting and self._waiting[0].pending.abandoned:
                    self._waiting.popleft()
                if not self._waiting:
                    if self._closed:
                        return []
                    self._idle += 1
                    self._change.wait()
                    self._idle -= 1
                    continue
                left = self._waiting[0].since + self._delay - time.monotonic()
                if len(self._waiting) >= self._most or self._closed or left <= 0:
                    return self._cut()
                self._change.wait(left)

    def _cut(self) -> list[_Item[Result]]:
        """What waits, shared with the threads that are idle: two half batches at once are answered sooner than one."""
        kind = _kind(self._waiting[0].image)
        share = min(self._most, -(-len(self._waiting) // (self._idle + 1)))
        batch: list[_Item[Result]] = []
        while self._waiting and len(batch) < share and _kind(self._waiting[0].image) == kind:
            item = self._waiting.popleft()
            if not item.pending.abandoned:
                batch.append(item)
        QUEUE_DEPTH.set(len(self._waiting))
        return batch


def _kind(image: Prepared) -> tuple[object, ...]:
    return image.dtype, image.shape
