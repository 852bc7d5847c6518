"""What every protocol asks: admits images, waits for the champion's word, counts."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from serving.admission import Admission
from serving.asked import Answer, Asked
from serving.champion import Champion
from serving.deciding import Found
from serving.explaining import Explainer
from serving.loaded import Loaded, RetiredError
from serving.metrics import count
from serving.rejection import RequestError

Observe = Callable[[Loaded, Asked, Sequence[Found]], None]
"""Is shown each answered request."""


@dataclass(frozen=True)
class Limits:
    """What a request may be.

    Attributes:
        images: Images a request.
        body_bytes: Its body.
        read_seconds: From its head to the end of its body.
        answer_seconds: From there to its answer.
    """

    images: int
    body_bytes: int
    read_seconds: float
    answer_seconds: float


class Predictor:
    """Answers requests of any protocol.

    Args:
        champion: Holds the model.
        admission: Bounds what is under way.
        limits: What a request may be.
        observe: Is shown each answered request; None where nobody samples.
    """

    def __init__(
        self, champion: Champion, admission: Admission, limits: Limits, observe: Observe | None = None
    ) -> None:
        self.champion, self.admission, self.limits, self._observe = champion, admission, limits, observe
        self._explainer = Explainer()

    async def answer(self, asked: Asked) -> Answer:
        """What the champion says of a request's images.

        Raises:
            RequestError: Too many images wait, one cannot be read, or the time is over.
        """
        images = len(asked.images)
        self.admission.take_images(images)
        try:
            with self._explainer.admitted(asked):
                async with asyncio.timeout(self.limits.answer_seconds):
                    answer = await self._answer(asked)
        except TimeoutError as error:
            seconds = self.admission.seconds_to_wait()
            detail = f"no answer within {self.limits.answer_seconds:g} s; come back in {seconds} s"
            later = {"Retry-After": str(seconds)}
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "too_late", detail, later) from error
        finally:
            self.admission.give_images(images)
        count((row.label or None, row.confidence, row.abstained) for row in answer.rows)
        return answer

    async def _answer(self, asked: Asked) -> Answer:
        while True:
            loaded = self.champion.loaded()
            try:
                found, heat_maps = await self._find(loaded, asked)
            except RetiredError:  # replaced since; the one in its place answers
                continue
            if self._observe is not None:
                self._observe(loaded, asked, found)
            answer = loaded.answer(found) if not asked.neighbours else await self._compared(loaded, found, asked)
            if not asked.explain:
                return answer
            rows = [replace(row, heat_map=png) for row, png in zip(answer.rows, heat_maps, strict=True)]
            return replace(answer, rows=rows)

    @staticmethod
    async def _compared(loaded: Loaded, found: list[Found], asked: Asked) -> Answer:
        """An answer with neighbours: a search among thousands, and perhaps a look into a store."""
        return await asyncio.to_thread(loaded.answer, found, asked.neighbours)

    async def _find(self, loaded: Loaded, asked: Asked) -> tuple[list[Found], list[bytes | None]]:
        """What is said of each image, and its heat map where they are asked for."""
        if not asked.explain:
            return await loaded.find(asked), []
        with loaded.lease():
            found = await loaded.find(asked)
            return found, await self._explainer.heat_maps(loaded, asked, found)
