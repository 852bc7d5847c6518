"""The model that answers now, and how another one takes its place without a request lost."""

import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from scanloop.errors import ScanloopError
from serving.loaded import Loaded
from serving.metrics import RELOADS, announce
from serving.rejection import RequestError

logger = logging.getLogger("scanloop.serving")


@dataclass(frozen=True)
class Source:
    """Where bundles come from.

    Attributes:
        current: What names the bundle that is there now; cheap.
        load: That bundle, read, checked and warm; slow.
    """

    current: Callable[[], str]
    load: Callable[[], Loaded]


class Champion:
    """Holds what is loaded; a request keeps what it began with to its end.

    Args:
        name: Of the model.
        source: Where bundles come from.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self._source = source
        self._loaded: Loaded | None = None
        self._known: str | None = None
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether it answers, and will go on to."""
        return self._loaded is not None and not self.draining

    def loaded(self) -> Loaded:
        """What answers a request that comes now.

        Raises:
            RequestError: Nothing is loaded yet.
        """
        if self._loaded is None:
            later = {"Retry-After": "2"}
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "the model is being loaded", later)
        return self._loaded

    def load(self) -> None:
        """Put the first bundle in place.

        Raises:
            ScanloopError: It cannot be had, or is refused.
        """
        with self._turn:
            self._known = self._source.current()
            self._put(self._source.load())
        settle()

    def refresh(self) -> bool:
        """Put the bundle that is there now in place, if it is another one; a bundle that is refused changes nothing."""
        with self._turn:
            try:
                found = self._source.current()
                if found == self._known:
                    return False
                loaded = self._source.load()
            except ScanloopError as error:
                RELOADS.labels("refused").inc()
                logger.warning("the new bundle is not served: %s", error)
                return False
            former = self._loaded
            self._put(loaded)
            self._known = found
            RELOADS.labels("done").inc()
        if former is not None:
            former.retire()
            del former
            settle()
        return True

    def watch(self, seconds: float) -> None:
        """Look for another bundle every so many seconds, in a thread, until `close`."""
        threading.Thread(target=self._watch, args=(seconds,), name="watch", daemon=True).start()

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.refresh()
            except Exception:
                logger.exception("the look for a new bundle failed")

    def close(self) -> None:
        """Answer what was asked, then let go."""
        self._stop.set()
        with self._turn:
            former, self._loaded = self._loaded, None
        if former is not None:
            former.retire()

    def _put(self, loaded: Loaded) -> None:
        bundle = loaded.bundle
        announce(self.name, bundle.digest, bundle.classes, bundle.engine.name, bundle.engine.precision)
        self._loaded = loaded
        logger.info(
            "serving %s, digest %s, by %s in %s", self.name, bundle.digest, bundle.engine.name, bundle.engine.precision
        )


def settle() -> None:
    """Collect garbage, and keep later collections from walking all that is loaded: that takes a tenth of a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
