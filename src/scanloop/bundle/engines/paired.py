"""Two networks of one kind: a lone forward pass gets all cores, several at once get one each.

Threads that share a pass wait for one another: on two cores a batch in one thread costs a quarter less of the
processor, while a lone image in two is answered in almost half the time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scanloop.bundle.engines.engine import Engine, EngineName, Floats, Outputs, Precision, Squares

LONE_IMAGES = 2
"""A pass of more images than this is one of several, or soon will be."""


class Paired:
    """An engine over two.

    Args:
        alone: Runs a pass on all cores.
        together: Runs as many passes at once as there are cores.
    """

    def __init__(self, alone: Engine, together: Engine) -> None:
        self._alone, self._together = alone, together
        self._lock = threading.Lock()
        self._running = 0

    @property
    def name(self) -> EngineName:
        """Of both."""
        return self._alone.name

    @property
    def precision(self) -> Precision:
        """Of both."""
        return self._alone.precision

    def run_squares(self, squares: Squares) -> Outputs:
        """Outputs for uint8 (n, s, s, 3) RGB."""
        with self._engine(len(squares)) as engine:
            return engine.run_squares(squares)

    def run_inputs(self, inputs: Floats) -> Outputs:
        """Outputs for float32 (n, 3, s, s), normalised."""
        with self._engine(len(inputs)) as engine:
            return engine.run_inputs(inputs)

    @property
    def networks(self) -> tuple[Engine, Engine]:
        """Both, for checks and warm-up."""
        return self._alone, self._together

    @contextmanager
    def _engine(self, images: int) -> Iterator[Engine]:
        with self._lock:
            lone = self._running == 0 and images <= LONE_IMAGES
            self._running += 1
        try:
            yield self._alone if lone else self._together
        finally:
            with self._lock:
                self._running -= 1


def networks_of(engine: Engine) -> tuple[Engine, ...]:
    """What must be checked and warmed up each by itself."""
    return engine.networks if isinstance(engine, Paired) else (engine,)
