"""Predictions of a bundle in process: images are decoded ahead by threads, run in batches, and decided."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scanloop.bundle.decisions import Decisions, decide
from scanloop.bundle.predict import Bundle
from scanloop.cores import usable_cores
from scanloop.errors import ImageError
from scanloop.scoring.rows import Scored, unreadable
from scanloop.types import Image

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Square:
    """An image as the network takes it.

    Attributes:
        uri: Where it lies.
        slice_id: Its id in a catalog, or None.
        pixels: uint8 (s, s, 3), or why there are none.
    """

    uri: str
    slice_id: str | None
    pixels: Image | ImageError


@dataclass(frozen=True)
class Pace:
    """How much is done at once.

    Attributes:
        batch: Images a forward pass.
        passes: Forward passes at a time.
        decoders: Images that are decoded at a time.
    """

    batch: int = 8
    passes: int = 1
    decoders: int = usable_cores()


def in_order(work: Callable[[Given], Made], items: Iterable[Given], threads: int, ahead: int) -> Iterator[Made]:
    """What the work makes of each item, in their order, by so many threads and so many items ahead at most."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def score(bundle: Bundle, squares: Iterable[Square], pace: Pace) -> Iterator[Scored]:
    """Rows of images, in order; an image that could not be read gets a row that says so."""

    def run(batch: list[Square]) -> list[Scored]:
        readable = [one.pixels for one in batch if not isinstance(one.pixels, ImageError)]
        decisions = decide(bundle, bundle.engine.run_squares(np.stack(readable))) if readable else None
        rows, place = [], 0
        for one in batch:
            if isinstance(one.pixels, ImageError):
                rows.append(unreadable(one.uri, str(one.pixels), one.slice_id, bundle.digest))
                continue
            assert decisions is not None
            rows.append(_row(bundle, decisions, place, one))
            place += 1
        return rows

    for rows in in_order(run, batches(squares, pace.batch), pace.passes, pace.passes):
        yield from rows


def batches(items: Iterable[Given], size: int) -> Iterator[list[Given]]:
    """Items in lists of so many; the last one may be shorter."""
    batch: list[Given] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _row(bundle: Bundle, decisions: Decisions, row: int, square: Square) -> Scored:
    probabilities = decisions.probabilities[row].tolist()
    label = int(decisions.labels[row])
    inside = decisions.members[row].tolist()
    return Scored(
        square.uri,
        square.slice_id,
        bundle.classes[label],
        probabilities[label],
        dict(zip(bundle.classes, probabilities, strict=True)),
        [name for name, member in zip(bundle.classes, inside, strict=True) if member],
        decisions.reasons[row],
        None,
        None if decisions.strangeness is None else float(decisions.strangeness[row]),
        bundle.digest,
    )
