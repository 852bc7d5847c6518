"""Rows of a large matrix, block by block: bounded memory, every core at work, the same bits on any number of cores."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from scanloop.cores import usable_cores
from scanloop.types import Float, Labels, Vectors

Workers: TypeAlias = ThreadPoolExecutor

Item = TypeVar("Item")
Made = TypeVar("Made")

BLOCK_ROWS = 2048
"""Rows a block: 4 MiB of 512 float32, about what a core's cache holds."""


@contextmanager
def workers() -> Iterator[Workers]:
    """A thread a core, each with one thread of BLAS, whose own threads would add in an order that depends on cores."""
    cores = usable_cores()
    with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        yield pool


def in_order(pool: Workers, work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """What `work` makes of each item, in the items' order; a few items are under way at a time, never all.

    >>> with workers() as pool:
    ...     list(in_order(pool, abs, [-2, -1, 3]))
    [2, 1, 3]
    """
    under_way: deque[Future[Made]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) > 2 * pool._max_workers:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def blocks(rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def drawn(rows: int, most: int, seed: int) -> Labels:
    """Numbers of at most `most` of some rows, drawn by seed, ascending; all where they are no more."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def nearest_centre(points: Vectors, centres: Float) -> Labels:
    """Nearest centre (n,) of each point (n, d), of centres (k, d)."""
    half = np.einsum("ij,ij->i", centres, centres) / 2

    def nearest(rows: slice) -> Labels:
        found: Labels = (points[rows].astype(np.float64) @ centres.T - half).argmax(axis=1)
        return found

    with workers() as pool:
        return np.concatenate([np.empty(0, dtype=np.int64), *in_order(pool, nearest, blocks(len(points)))])


def unit(rows: Vectors) -> Float:
    """Rows (n, d) at unit length, float64; a row of zeros stays one."""
    values = rows.astype(np.float64)
    found: Float = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return found
