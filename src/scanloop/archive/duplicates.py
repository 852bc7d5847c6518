"""Near-duplicates: slices that look the same although their bytes differ, found without comparing all with all."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from scanloop.types import Float, Image, Labels

Hashes = npt.NDArray[np.uint64]
"""uint64 (n,): one perceptual hash a slice."""

THUMBNAIL_PX = 32
AGREEING_BANDS = 3
PAIRS_A_SLICE = 256
FLAT_STD = 1.0
"""Thumbnails whose grey values spread less than this are blank: they tell nothing of whom they show."""
_BLOCK = 1 << 10
_COUNTED = 1 << 16


def thumbnail(image: Image) -> Image:
    """The slice in 32x32 grey pixels, uint8 (32, 32), range 0..255; its aspect is not kept."""
    picture = PIL.Image.fromarray(image).convert("L")
    sampling = PIL.Image.Resampling.BOX if min(picture.size) >= THUMBNAIL_PX else PIL.Image.Resampling.BILINEAR
    return np.asarray(picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), sampling))


def perceptual_hashes(thumbnails: Image) -> Hashes:
    """64-bit perceptual hashes from the low frequencies of the cosine transform.

    The 8x8 coefficients beside the constant ones are compared with their median (Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010). The smoothing filter before it is left out: shrinking to
    a thumbnail has averaged already.

    Args:
        thumbnails: uint8 (n, 32, 32), range 0..255.

    Returns:
        uint64 (n,), the first coefficient in the highest bit.
    """
    basis = _cosine_basis()
    parts = [(basis @ block.astype(np.float64) @ basis.T).reshape(-1, 64) for block in _blocks(thumbnails)]
    low = np.concatenate([np.empty((0, 64)), *parts])
    # Rounded, so that the order in which a machine sums cannot turn a bit of a coefficient that is zero.
    bits = np.round(low, 6) > np.round(np.median(low, axis=1, keepdims=True), 6)
    return np.packbits(bits, axis=1).view(">u8").reshape(-1).astype(np.uint64)


def is_blank(thumbnails: Image) -> npt.NDArray[np.bool_]:
    """Whether a thumbnail, uint8 (n, 32, 32), shows next to nothing: bool (n,)."""
    spreads = [block.std(axis=(1, 2), dtype=np.float64) for block in _blocks(thumbnails)]
    blank: npt.NDArray[np.bool_] = np.concatenate([np.empty(0), *spreads]) < FLAT_STD
    return blank


def near_duplicate_pairs(
    hashes: Hashes, thumbnails: Callable[[Labels], Image], max_bits: int, min_correlation: float, first_new: int = 0
) -> Labels:
    """Pairs of slices whose hashes differ in few bits and whose thumbnails correlate.

    Hashes that differ in at most b bits agree in at least three of b + 3 bands (pigeonhole), so only slices that
    share some three bands are compared.

    Args:
        hashes: uint64 (n,), from `perceptual_hashes`, of slices that are not blank.
        thumbnails: Thumbnails, uint8 (m, 32, 32), of rows, int64 (m,).
        max_bits: Most differing bits, 0..16.
        min_correlation: Least Pearson correlation of two thumbnails, in 0..1.
        first_new: Pairs of which both rows are below this are known, and not looked for.

    Returns:
        int64 (pairs, 2), rows i < j, sorted, each pair once.
    """
    kept = [np.empty((0, 2), np.int64)]
    for pairs in _near(hashes, max_bits, first_new):
        for block in _blocks(pairs):
            alike = correlations(thumbnails(block[:, 0]), thumbnails(block[:, 1])) >= min_correlation
            kept.append(block[alike])
    return _sorted(np.concatenate(kept))


class ThumbnailFile:
    """Thumbnails one after the other in a file, read row by row: a memory map would count as memory.

    Args:
        path: The file.
        count: Thumbnails that count; what a killed process wrote after them goes.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        with path.open("ab") as file:
            file.truncate(count * THUMBNAIL_PX**2)

    def append(self, thumbnails: Image) -> None:
        """Add thumbnails, uint8 (n, 32, 32), so that they last."""
        with self._path.open("ab") as file:
            file.write(thumbnails.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def __call__(self, rows: Labels) -> Image:
        """Thumbnails of rows, uint8 (m, 32, 32)."""
        size = THUMBNAIL_PX**2
        with self._path.open("rb", buffering=0) as file:
            parts = [os.pread(file.fileno(), size, row * size) for row in rows.tolist()]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)


def affordable_bits(hashes: Hashes, max_bits: int) -> int:
    """Most differing bits for which at most `PAIRS_A_SLICE` pairs a slice have to be compared.

    Slices of one part of the body look alike, so pairs within a few bits grow with the square of the archive, nearly
    all of them of different patients. A true near-duplicate differs in few bits: a large archive asks for fewer.

    Args:
        hashes: uint64 (n,).
        max_bits: The answer where it is affordable.
    """
    for bits in range(max_bits, 0, -1):
        pairs = 0
        for mask in _masks(bits):
            keys = hashes & mask
            keys.sort()
            pairs += _equal_pairs(keys)
            if pairs > PAIRS_A_SLICE * len(hashes):
                break
        else:
            return bits
    return 0


def hash_pairs(hashes: Hashes, max_bits: int, first_new: int = 0) -> Labels:
    """Pairs of hashes that differ in few bits, int64 (pairs, 2), rows i < j, sorted, each pair once.

    Args:
        hashes: uint64 (n,).
        max_bits: Most differing bits, 0..16.
        first_new: Pairs of which both rows are below this are left out.
    """
    return _sorted(np.concatenate([np.empty((0, 2), np.int64), *_near(hashes, max_bits, first_new)]))


def correlations(left: Image, right: Image) -> Float:
    """Pearson correlation of thumbnails that are not blank, row by row.

    Args:
        left: uint8 (n, 32, 32), range 0..255.
        right: uint8 (n, 32, 32), range 0..255.

    Returns:
        float64 (n,), range -1..1.
    """
    one, two = (side.reshape(len(side), THUMBNAIL_PX**2).astype(np.float64) for side in (left, right))
    one -= one.mean(axis=1, keepdims=True)
    two -= two.mean(axis=1, keepdims=True)
    product: Float = (one * two).mean(axis=1) / (one.std(axis=1) * two.std(axis=1))
    return product


def _near(hashes: Hashes, max_bits: int, first_new: int) -> Iterator[Labels]:
    """Pairs of `hash_pairs` in parts, in any order: each comes once, with the first three bands that it shares."""
    masks = _masks(max_bits)
    for number, mask in enumerate(masks):
        for pairs in _candidates(hashes, mask):
            rows = np.sort(pairs[pairs.max(axis=1) >= first_new], axis=1)
            differing = hashes[rows[:, 0]] ^ hashes[rows[:, 1]]
            first = np.bitwise_count(differing) <= max_bits
            for earlier in masks[:number]:
                first &= (differing & earlier) != 0
            yield rows[first]


def _candidates(hashes: Hashes, mask: np.uint64) -> Iterator[Labels]:
    """Pairs that agree in the bits of a mask, int64 (pairs, 2), in parts, each pair once, in any order."""
    ranked = hashes & mask
    order = np.argsort(ranked)
    ranked = ranked[order]
    left = np.flatnonzero(ranked[1:] == ranked[:-1])
    distance = 1
    while len(left):
        for start in range(0, len(left), _COUNTED):
            part = left[start : start + _COUNTED]
            yield np.stack([order[part], order[part + distance]], axis=1)
        distance += 1
        left = left[left + distance < len(ranked)]
        left = left[ranked[left] == ranked[left + distance]]


def _sorted(pairs: Labels) -> Labels:
    """Pairs (n, 2) in the order of the first row, then the second."""
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _equal_pairs(ranked: Hashes) -> int:
    """Pairs of equal numbers among sorted ones, uint64 (n,)."""
    pairs, start = 0, 0
    for first in range(0, len(ranked), _COUNTED):
        block = ranked[first : first + _COUNTED + 1]
        ends = np.append(start, np.flatnonzero(block[1:] != block[:-1]) + first + 1)
        runs = np.diff(ends)
        pairs += int((runs * (runs - 1) // 2).sum())
        start = int(ends[-1])
    last = len(ranked) - start
    return pairs + last * (last - 1) // 2


def _masks(max_bits: int) -> list[np.uint64]:
    """Masks of the bits of every three bands among `max_bits` + 3 bands of nearly equal width."""
    bands = np.array_split(np.uint64(1) << np.arange(64, dtype=np.uint64), max_bits + AGREEING_BANDS)
    return [np.bitwise_or.reduce(np.concatenate(chosen)) for chosen in combinations(bands, AGREEING_BANDS)]


def _blocks(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The rows in blocks that fit in memory, whatever lies behind the array."""
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


@cache
def _cosine_basis() -> Float:
    """Rows 1..8 of the orthonormal 32-point DCT-II, float64 (8, 32)."""
    frequency, position = np.arange(1, 9)[:, None], np.arange(THUMBNAIL_PX)[None]
    basis: Float = np.sqrt(2 / THUMBNAIL_PX) * np.cos(np.pi * (2 * position + 1) * frequency / (2 * THUMBNAIL_PX))
    return basis
