"""Limits on how often: buckets of tokens in memory, no more of them than fit a bound."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000


class Buckets:
    """A bucket of tokens for each key, filled steadily; whoever finds theirs empty waits.

    The keys that were used least lately are forgotten beyond 10,000, which fills their bucket again.

    Args:
        a_minute: Tokens that flow in.
        burst: Tokens that a full bucket holds.
        clock: Seconds, from any start.
    """

    def __init__(self, a_minute: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second, self._burst, self._clock = a_minute / 60, max(1.0, burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, key: str) -> int:
        """Take a token and return 0; or take none and return the whole seconds until there is one."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._a_second)
            wait = 0 if left >= 1 else math.ceil((1 - left) / self._a_second)
            self._buckets[key] = (left - 1 if wait == 0 else left, now)
            while len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)
            return wait

    def give_back(self, key: str) -> None:
        """Put a token back: what it was taken for does not count."""
        with self._lock:
            if key in self._buckets:
                left, at = self._buckets[key]
                self._buckets[key] = (min(self._burst, left + 1), at)

    def __len__(self) -> int:
        return len(self._buckets)
