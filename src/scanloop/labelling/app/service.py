"""What every request of the page shares: the store, the images, the texts, the limits, and what is counted lately."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from fastapi import FastAPI, Request

from scanloop.labelling.agreement import Agreement, measure_agreement
from scanloop.labelling.app.pictures import Pictures
from scanloop.labelling.app.rates import Buckets
from scanloop.labelling.app.settings import PageSettings
from scanloop.labelling.progress import Progress, last_hour, progress
from scanloop.labelling.sessions import Lifetime
from scanloop.labelling.store import Store

T = TypeVar("T")
COUNTED_SECONDS, AGREED_SECONDS = 2.0, 10.0


class Lately(Generic[T]):
    """A value that is computed again when it is older than some seconds, by one thread at a time."""

    def __init__(self, compute: Callable[[], T], seconds: float) -> None:
        self._compute, self._seconds, self._lock = compute, seconds, threading.Lock()
        self._value: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The value."""
        with self._lock:
            if self._value is None or time.monotonic() - self._value[0] > self._seconds:
                found = self._compute()
                self._value = (time.monotonic(), found)
            return self._value[1]

    def forget(self) -> None:
        """Compute anew when it is asked for next."""
        with self._lock:
            self._value = None


@dataclass(frozen=True)
class Service:
    """What the page works with.

    Attributes:
        store: The label store.
        settings: The page's.
        pictures: Images of the catalogs.
        logins_of_names: Log-ins that names may try.
        logins_of_addresses: Log-ins that addresses may try.
        requests: Requests of each session.
        counted: How far the wave is; counted every two seconds at most, whoever asks.
        agreement: How readers agree, and how many readings each gave within the hour; counted every ten seconds.
        lifetime: Of sessions.
    """

    store: Store
    settings: PageSettings
    pictures: Pictures
    logins_of_names: Buckets
    logins_of_addresses: Buckets
    requests: Buckets
    counted: Lately[Progress | None]
    agreement: Lately[tuple[Agreement, dict[str, int]]]
    lifetime: Lifetime = field(default_factory=Lifetime)


def make_service(store: Store, settings: PageSettings) -> Service:
    """All of it, from the settings.

    Raises:
        ArtifactError: A catalog is none.
    """
    return Service(
        store=store,
        settings=settings,
        pictures=Pictures(settings.catalogs, settings.image_cache_mib * 2**20),
        logins_of_names=Buckets(settings.logins_a_minute, settings.logins_a_minute),
        logins_of_addresses=Buckets(4 * settings.logins_a_minute, 4 * settings.logins_a_minute),
        requests=Buckets(settings.requests_a_minute, settings.requests_a_minute / 6),
        counted=Lately(lambda: progress(store, ""), COUNTED_SECONDS),
        agreement=Lately(lambda: (measure_agreement(store), last_hour(store)), AGREED_SECONDS),
        lifetime=Lifetime(timedelta(minutes=settings.idle_minutes), timedelta(hours=settings.session_hours)),
    )


def service_of(request: Request) -> Service:
    """What the application of a request works with."""
    app: Any = request.app
    assert isinstance(app, FastAPI)
    service: Service = app.state.service
    return service
