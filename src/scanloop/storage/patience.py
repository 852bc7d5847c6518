"""Try again what a network or a busy server spoilt, later each time, and say one clear thing where it stays spoilt."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from scanloop.errors import StorageError

logger = logging.getLogger("scanloop")

T = TypeVar("T")


class PassingError(Exception):
    """What may be gone when it is tried again: throttling, a lost connection, a short answer, a wrong checksum.

    Attributes:
        wait_seconds: What the server asked for, if it did.
    """

    def __init__(self, detail: str, wait_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Patience:
    """How often something is tried, and how long is waited in between.

    The wait before attempt n is drawn evenly from 0 to `first_seconds` * 2^(n-1), at most `most_seconds` ("full
    jitter", Brooker 2015, AWS Architecture Blog), so that readers that were refused together do not come back together.
    What a server asks for is waited out, with that draw on top, at most `most_seconds`.

    Attributes:
        attempts: At most, the first one included.
        first_seconds: Upper end of the first draw.
        most_seconds: Longest wait.
        sleep: Waits; seconds.
    """

    attempts: int = 7
    first_seconds: float = 0.25
    most_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def try_for(self, subject: str, attempt: Callable[[], T]) -> T:
        """What the attempt gives, as soon as one passes.

        Args:
            subject: What is tried, for messages: a verb and an address.
            attempt: Is called until it raises no `PassingError`; it must be safe to repeat.

        Raises:
            StorageError: None of the attempts passed.
        """
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except PassingError as error:
                if number == self.attempts:
                    raise StorageError(
                        f"{subject}: {error} ({number} attempts); run again when the store answers"
                    ) from None  # what lies below may quote signed requests
                wait = self._wait(number, error.wait_seconds)
                logger.info("%s: %s; attempt %d in %.1f s", subject, error, number + 1, wait)
                self.sleep(wait)
        raise AssertionError("attempts is at least 1")

    def _wait(self, number: int, asked: float | None) -> float:
        drawn = random.uniform(0, min(self.most_seconds, self.first_seconds * 2 ** (number - 1)))  # noqa: S311  no secret
        return min(self.most_seconds, (asked or 0.0) + drawn)
