"""Files are fetched ahead of whoever takes them in: side by side, in order, with a bound on what lies ready."""

import threading
import time
from collections.abc import Iterator

from faulty_proxy import faulty
from object_store import Bucket

from scanloop.archive.ahead import fetch_ahead
from scanloop.archive.readers import RawImage
from scanloop.archive.readers.record import Later
from scanloop.errors import ImageError
from scanloop.storage.address import Address
from scanloop.storage.patience import Patience
from scanloop.storage.s3 import S3Store


class Slow:
    """Images whose bytes take a while; knows how many are read at once and how many bytes lie ready."""

    def __init__(self, sizes: list[int], seconds: float) -> None:
        self.sizes, self.seconds = sizes, seconds
        self.lock = threading.Lock()
        self.reading = self.most_reading = self.listed = 0

    def load(self, number: int) -> bytes:
        with self.lock:
            self.reading += 1
            self.most_reading = max(self.most_reading, self.reading)
        time.sleep(self.seconds * (1 + number % 3))
        with self.lock:
            self.reading -= 1
        return bytes([number % 256]) * self.sizes[number]

    def images(self) -> Iterator[RawImage]:
        for number, size in enumerate(self.sizes):
            self.listed = number + 1
            yield RawImage(str(number), Later(size, lambda number=number: self.load(number)))


def test_files_are_fetched_side_by_side_and_come_in_order() -> None:
    slow = Slow([100] * 64, 0.01)
    started = time.monotonic()
    found = list(fetch_ahead(slow.images(), threads=8))
    taken = time.monotonic() - started
    assert [raw.uri for raw in found] == [str(number) for number in range(64)]
    assert [raw.payload for raw in found] == [bytes([number]) * 100 for number in range(64)]
    assert slow.most_reading == 8
    assert taken < 0.5 * 64 * 0.02, "one at a time would take 1.28 s"


def test_what_lies_ready_is_bounded_in_number_and_in_bytes() -> None:
    slow = Slow([1000] * 200, 0.0)
    images = fetch_ahead(slow.images(), threads=2, max_bytes=1 << 20)
    next(images)
    assert slow.listed <= 2 * 4 + 2
    slow = Slow([1000] * 200, 0.0)
    images = fetch_ahead(slow.images(), threads=50, max_bytes=5000)
    for taken, _ in enumerate(images, 1):
        assert slow.listed - taken <= 6
    large = Slow([10_000, 10_000], 0.0)
    assert [len(raw.payload) for raw in fetch_ahead(large.images(), max_bytes=10)] == [10_000, 10_000]


def test_a_payload_at_hand_is_handed_on_before_the_next_image_is_asked_for() -> None:
    asked: list[int] = []

    def images() -> Iterator[RawImage]:
        for number in range(6):
            asked.append(number)
            yield RawImage(str(number), b"at hand" if number % 2 else Later(1, lambda: b"x"))

    for taken, raw in enumerate(fetch_ahead(images())):
        if raw.payload == b"at hand":
            assert asked[-1] == taken


def test_a_fetch_that_fails_is_a_fault_of_its_image_and_an_early_end_leaves_no_thread() -> None:
    def fail() -> bytes:
        raise ImageError("unreadable", "gone")

    images = [RawImage("a", Later(1, fail)), RawImage("b", Later(1, lambda: b"x"))]
    faults = [raw.fault and raw.fault.reason for raw in fetch_ahead(images)]
    assert faults == ["unreadable", None]
    ahead = fetch_ahead(Slow([10] * 50, 0.001).images(), threads=4)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_an_s3_client_is_safe_from_several_threads(bucket: Bucket) -> None:
    for number in range(40):
        bucket.direct.put_object(Bucket=bucket.name, Key=f"{number:02d}", Body=bytes([number]) * 999)
    with faulty(bucket.proxy.url, delay_seconds=0.01) as proxy:
        store = S3Store(Address.parse(f"s3://{bucket.name}"), proxy.url, Patience())
        images = [RawImage(one.key, Later(one.size, lambda one=one: store.read(one))) for one in store.objects()]
        found = [raw.payload for raw in fetch_ahead(images)]
    assert found == [bytes([number]) * 999 for number in range(40)]
