"""Batches, admission and the change of champions, without a server around them."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scanloop.errors import BundleError
from serving.admission import Admission
from serving.batching import Batcher, Pending
from serving.champion import Champion, Source
from serving.metrics import RELOADS
from serving.rejection import RequestError


def image(value: int, dtype: type = np.uint8) -> Any:
    return np.full((2, 2, 3), value, dtype)


async def ask(batcher: Batcher[int], values: Sequence[int], dtype: type = np.uint8) -> list[int]:
    pending: Pending[int] = Pending.of(len(values), asyncio.get_running_loop())
    for index, value in enumerate(values):
        batcher.put(image(value, dtype), pending, index)
    return await pending.done


def noting(seen: list[Any], seconds: float = 0.0) -> Callable[[Any], list[int]]:
    def run(images: Any) -> list[int]:
        seen.append((images.dtype, len(images)))
        time.sleep(seconds)
        return [int(one[0, 0, 0]) * 2 for one in images]

    return run


def test_every_image_gets_its_own_result_whatever_it_is_batched_with() -> None:
    seen: list[Any] = []
    batcher = Batcher(noting(seen, 0.001), most=8, threads=2)
    rng = np.random.default_rng(0)
    requests = [rng.integers(0, 100, rng.integers(1, 20)).tolist() for _ in range(60)]

    async def all_at_once() -> list[list[int]]:
        kinds = [np.uint8 if number % 3 else np.float32 for number in range(len(requests))]
        return await asyncio.gather(*(ask(batcher, some, kind) for some, kind in zip(requests, kinds, strict=True)))

    answers = asyncio.run(all_at_once())
    batcher.close()
    assert answers == [[value * 2 for value in some] for some in requests]
    assert sum(size for _, size in seen) == sum(map(len, requests))
    assert max(size for _, size in seen) <= 8
    assert len(seen) < sum(map(len, requests)) / 2  # they were batched
    assert {dtype for dtype, _ in seen} == {np.dtype(np.uint8), np.dtype(np.float32)}


def test_a_failed_batch_fails_its_own_requests_and_no_later_one() -> None:
    def run(images: Any) -> list[int]:
        if images[0, 0, 0, 0] == 13:
            raise ValueError("broken")
        return [0] * len(images)

    batcher = Batcher(run, most=4)

    async def both() -> list[int]:
        with pytest.raises(ValueError, match="broken"):
            await ask(batcher, [13])
        return await ask(batcher, [1, 2])

    assert asyncio.run(both()) == [0, 0]
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    seen: list[Any] = []
    batcher = Batcher(noting(seen, 0.2), most=1)

    async def leave() -> None:
        first = asyncio.create_task(ask(batcher, [1]))
        second = asyncio.create_task(ask(batcher, [2]))
        await asyncio.sleep(0.05)
        second.cancel()
        await first

    asyncio.run(leave())
    batcher.close()
    assert len(seen) == 1


def test_a_batch_waits_for_more_no_longer_than_it_may() -> None:
    seen: list[Any] = []
    batcher = Batcher(noting(seen), most=8, delay_seconds=0.2)

    async def late() -> float:
        started = time.monotonic()
        first = asyncio.create_task(ask(batcher, [1]))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, ask(batcher, [2]))
        return time.monotonic() - started

    assert 0.15 < asyncio.run(late()) < 1
    batcher.close()
    assert [size for _, size in seen] == [2]


def test_two_idle_threads_share_what_waits() -> None:
    seen: list[Any] = []
    start = threading.Barrier(2, timeout=5)

    def run(images: Any) -> list[int]:
        seen.append(len(images))
        start.wait()
        return [0] * len(images)

    batcher = Batcher(run, most=8, threads=2)

    async def together() -> None:
        pending: Pending[int] = Pending.of(8, asyncio.get_running_loop())
        with batcher._change:
            for index in range(8):
                batcher.put(image(index), pending, index)
        await pending.done

    asyncio.run(together())
    batcher.close()
    assert sorted(seen) == [4, 4]


def test_too_much_at_once_is_told_to_come_back_and_when() -> None:
    admission = Admission(most_images=10, most_bytes=100)
    admission.take_images(9)
    with pytest.raises(RequestError) as refused:
        admission.take_images(2)
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "1"})
    admission.take_images(1)
    admission.give_images(10)
    admission.take_images(32)  # one request larger than the queue comes in alone, else it never would
    admission.give_images(32)
    admission.take_bytes(80)
    with pytest.raises(RequestError, match="bytes"):
        admission.take_bytes(30)
    admission.give_bytes(80)
    admission.take_bytes(100)


class Slow:
    """A model whose retirement can be watched."""

    def __init__(self, name: str) -> None:
        engine = SimpleNamespace(name="onnxruntime", precision="float32")
        self.bundle = SimpleNamespace(digest=name, classes=("a",), engine=engine)
        self.retired = False

    def retire(self) -> None:
        self.retired = True


def test_a_new_bundle_takes_the_old_ones_place_and_a_refused_one_changes_nothing() -> None:
    there: dict[str, Any] = {"name": "one"}
    made: list[Slow] = []

    def load() -> Any:
        if there["name"] == "broken":
            raise BundleError("model.onnx is not the file that bundle.json promises")
        made.append(Slow(there["name"]))
        return made[-1]

    champion = Champion("m", Source(lambda: there["name"], load))
    with pytest.raises(RequestError, match="being loaded"):
        champion.loaded()
    assert not champion.ready
    champion.load()
    assert champion.ready
    assert not champion.refresh()  # the same
    before = RELOADS.labels("refused")._value.get()
    there["name"] = "broken"
    assert not champion.refresh()
    assert RELOADS.labels("refused")._value.get() == before + 1
    assert champion.loaded() is made[0]
    there["name"] = "two"
    assert champion.refresh()
    assert champion.loaded() is made[1]
    assert [one.retired for one in made] == [True, False]
    champion.close()
    assert made[1].retired
