"""Heat maps beside answers: covered copies of an image queue up with everybody's images, some at a time.

So an explanation takes no engine away from others: whatever is asked meanwhile waits for that much more.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import numpy as np

from scanloop.bundle.explain import Prepared, covered, draw, drops
from serving.asked import Asked, Sent
from serving.deciding import Found
from serving.loaded import Loaded
from serving.metrics import EXPLAINED
from serving.rejection import RequestError

MOST_IMAGES = 4
"""Images a request that explains; each costs as much as 64."""

AT_ONCE, MOST_WAITING = 1, 8


class Explainer:
    """Explains images, one at a time; used on the event loop alone.

    Args:
        images: Images a request, at most.
        waiting: Requests that may wait for their turn.
    """

    def __init__(self, images: int = MOST_IMAGES, waiting: int = MOST_WAITING) -> None:
        self._images, self._most_waiting = images, waiting
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    @contextmanager
    def admitted(self, asked: Asked) -> Iterator[None]:
        """Let a request explain while the block runs; one that does not is let through.

        Raises:
            RequestError: It holds too many images, or too many wait already.
        """
        if not asked.explain:
            yield
            return
        if (count := len(asked.images)) > self._images:
            detail = f"{count} images; at most {self._images} a request are explained"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_images", detail)
        if self._waiting >= self._most_waiting:
            later = {"Retry-After": "5"}
            detail = f"{self._waiting} explanations wait already; come back in 5 s, or ask without 'explain'"
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", detail, later)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def heat_maps(self, loaded: Loaded, asked: Asked, found: Sequence[Found]) -> list[bytes | None]:
        """PNG of each image's heat map, None of one that could not be read; the bundle must be leased meanwhile."""
        async with self._turn:
            return [
                None if one.decisions is None else await self._explain(loaded, sent, one)
                for sent, one in zip(asked.images, found, strict=True)
            ]

    @staticmethod
    async def _explain(loaded: Loaded, sent: Sent, found: Found) -> bytes:
        assert found.decisions is not None
        preprocess, label = loaded.bundle.preprocess, int(found.decisions.labels[found.row])
        image: Prepared = await loaded.aside(lambda: loaded.prepare(sent))
        copies = list(covered(image, preprocess))
        probabilities: list[float] = []
        for start in range(0, len(copies), loaded.small_batch):
            for one in await loaded.run(copies[start : start + loaded.small_batch]):
                assert one.decisions is not None
                probabilities.append(float(one.decisions.probabilities[one.row, label]))
        whole = float(found.decisions.probabilities[found.row, label])
        heat = drops(whole, np.array(probabilities))
        EXPLAINED.inc()
        return await loaded.aside(lambda: draw(image, preprocess, heat))
