"""What every request of the page shares: the store, the images, the texts, the limits, and what is counted lately."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from sqlalchemy import select

from scanloop.errors import ConfigError
from scanloop.features.online import OnlineMetadata
from scanloop.labelling.agreement import Agreement, measure_agreement
from scanloop.labelling.app.pictures import Pictures
from scanloop.labelling.app.rates import Buckets
from scanloop.labelling.app.settings import PageSettings
from scanloop.labelling.progress import Progress, last_hour, progress
from scanloop.labelling.schema import Task, Wave
from scanloop.labelling.sessions import Lifetime, SignedIn, who_is
from scanloop.labelling.store import Store

logger = logging.getLogger("scanloop")

T = TypeVar("T")
COUNTED_SECONDS, AGREED_SECONDS = 2.0, 10.0
SIGNED_IN, MOST_SESSIONS = timedelta(seconds=1), 1000


class Lately(Generic[T]):
    """A value that is computed again when it is older than some seconds, by one thread; the others take the old one."""

    def __init__(self, compute: Callable[[], T], seconds: float) -> None:
        self._compute, self._seconds, self._lock = compute, seconds, threading.Lock()
        self._value: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The value."""
        known = self._value
        if not self._lock.acquire(blocking=known is None):
            assert known is not None
            return known[1]
        try:
            if self._value is None or time.monotonic() - self._value[0] > self._seconds:
                found = self._compute()
                self._value = (time.monotonic(), found)
            return self._value[1]
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Compute anew when it is asked for next."""
        with self._lock:
            self._value = None


class Sessions:
    """Whose sessions these are, as the store said within the last second: a page asks several things at once.

    Whatever changes or shows something asks the store itself, too, whether its reader was disabled.

    Args:
        store: The label store.
        lifetime: Of sessions.
    """

    def __init__(self, store: Store, lifetime: Lifetime) -> None:
        self._store, self._lifetime = store, lifetime
        self._known: OrderedDict[str, tuple[datetime, SignedIn]] = OrderedDict()
        self._lock = threading.Lock()

    def lately(self, secret: str) -> SignedIn | None:
        """Whose it was within the last second; None where that is not known."""
        with self._lock:
            at, who = self._known.get(secret, (None, None))
        return who if at is not None and timedelta(0) <= self._store.clock() - at < SIGNED_IN else None

    def ask(self, secret: str) -> SignedIn | None:
        """Whose it is, as the store says; None where there is none or it is over."""
        at, who = self._store.clock(), who_is(self._store, secret, self._lifetime)
        self.forget(secret)
        if who is not None:
            with self._lock:
                self._known[secret] = (at, who)
                while len(self._known) > MOST_SESSIONS:
                    self._known.popitem(last=False)
        return who

    def forget(self, secret: str) -> None:
        """Ask the store when it is asked for next."""
        with self._lock:
            self._known.pop(secret, None)


@dataclass(frozen=True)
class Service:
    """What the page works with.

    Attributes:
        store: The label store.
        settings: The page's.
        pictures: Images of the catalogs.
        logins_of_names: Log-ins that names may try.
        logins_of_addresses: Log-ins that addresses may try and fail: a whole hospital may stand behind one.
        logging_in: Log-ins under way; the others wait without a thread that readers need.
        requests: Requests of each session.
        counted: How far the wave is; counted every two seconds at most, whoever asks.
        agreement: How readers agree, and how many readings each gave within the hour; counted every ten seconds.
        sessions: Whose sessions these are.
        lifetime: Of sessions.
        metadata: Looks up what the feature repository knows; None where the settings name none.
    """

    store: Store
    settings: PageSettings
    pictures: Pictures
    logins_of_names: Buckets
    logins_of_addresses: Buckets
    logging_in: CapacityLimiter
    requests: Buckets
    counted: Lately[Progress | None]
    agreement: Lately[tuple[Agreement, dict[str, int]]]
    sessions: Sessions
    lifetime: Lifetime
    metadata: OnlineMetadata | None

    def known_of(self, slice_ids: list[str]) -> list[dict[str, Any] | None]:
        """What the feature repository knows of each image; nothing where there is none, or it does not answer."""
        try:
            return [None] * len(slice_ids) if self.metadata is None else self.metadata.of(slice_ids)
        except Exception:  # Feast's and a database's own; the page reads on without
            logger.exception("the feature repository does not answer")
            return [None] * len(slice_ids)


def make_service(store: Store, settings: PageSettings) -> Service:
    """All of it, from the settings.

    Raises:
        ArtifactError: A catalog is none.
        ConfigError: The open wave asks for images of which no catalog holds one, or there is no feature repository
            where the settings name one.
    """
    pictures = Pictures(settings.catalogs, settings.image_cache_mib * 2**20)
    _check_catalogs(store, pictures)
    lifetime = Lifetime(timedelta(minutes=settings.idle_minutes), timedelta(hours=settings.session_hours))
    return Service(
        store=store,
        settings=settings,
        pictures=pictures,
        logins_of_names=Buckets(settings.logins_a_minute, settings.logins_a_minute),
        logins_of_addresses=Buckets(4 * settings.logins_a_minute, 4 * settings.logins_a_minute),
        logging_in=CapacityLimiter(2),
        requests=Buckets(settings.requests_a_minute, settings.requests_a_minute / 6),
        counted=Lately(lambda: progress(store, ""), COUNTED_SECONDS),
        agreement=Lately(lambda: (measure_agreement(store), last_hour(store)), AGREED_SECONDS),
        sessions=Sessions(store, lifetime),
        lifetime=lifetime,
        metadata=None if settings.features is None else OnlineMetadata(settings.features),
    )


def _check_catalogs(store: Store, pictures: Pictures) -> None:
    with store.reading() as session:
        query = select(Task.slice_id).join(Wave, Wave.id == Task.wave_id).where(Wave.closed_at.is_(None))
        wanted = session.scalars(query).all()
    lacking = sum(slice_id not in pictures for slice_id in wanted)
    if wanted and lacking == len(wanted):
        raise ConfigError("the catalogs hold none of the open wave's images; give --catalog of the run it comes from")
    if lacking:
        logger.warning("%d of the open wave's %d images are in no catalog: add --catalog", lacking, len(wanted))


def service_of(request: Request) -> Service:
    """What the application of a request works with."""
    app: Any = request.app
    assert isinstance(app, FastAPI)
    service: Service = app.state.service
    return service
