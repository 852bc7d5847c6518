"""How much may be under way: images that wait, and bytes that are being sent. Beyond that, come back later."""

import math
import time
from collections import deque
from http import HTTPStatus

from serving.metrics import IN_FLIGHT
from serving.rejection import RequestError

REMEMBERED = 64
MOST_SECONDS = 30


class Admission:
    """Counts what is under way; used on the event loop alone.

    Args:
        most_images: Images that may wait or be worked on.
        most_bytes: Bytes of bodies that may be held.
    """

    def __init__(self, most_images: int, most_bytes: int) -> None:
        self._most_images, self._most_bytes = most_images, most_bytes
        self._images = self._bytes = 0
        self._finished: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)

    def take_bytes(self, count: int) -> None:
        """Reserve room for a body.

        Raises:
            RequestError: There is none.
        """
        if self._bytes + count > self._most_bytes and self._bytes:
            raise self._later("too many bytes are being sent at once")
        self._bytes += count

    def give_bytes(self, count: int) -> None:
        """Free the room of a body."""
        self._bytes -= count

    def take_images(self, count: int) -> None:
        """Admit images.

        Raises:
            RequestError: Too many wait.
        """
        if self._images + count > self._most_images and self._images:
            raise self._later(f"{self._images} images wait already")
        self._images += count
        IN_FLIGHT.set(self._images)

    def give_images(self, count: int) -> None:
        """Note images as answered."""
        self._images -= count
        IN_FLIGHT.set(self._images)
        self._finished.append((time.monotonic(), count))

    def seconds_to_wait(self) -> int:
        """When what waits now will have been answered, at the pace of the last answers; at least 1."""
        if len(self._finished) < 2:
            return 1
        span = self._finished[-1][0] - self._finished[0][0]
        rate = sum(count for _, count in self._finished) / max(span, 1e-3)
        return min(MOST_SECONDS, max(1, math.ceil(self._images / rate)))

    def _later(self, why: str) -> RequestError:
        seconds = self.seconds_to_wait()
        detail = f"{why}; come back in {seconds} s"
        return RequestError(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", detail, {"Retry-After": str(seconds)})
