from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.archive.duplicates import (
    ThumbnailFile,
    correlations,
    is_blank,
    near_duplicate_pairs,
    perceptual_hashes,
    thumbnail,
)
from scanloop.types import Image


def smooth(generator: np.random.Generator, count: int, side: int = 32) -> Image:
    spectrum = generator.standard_normal((count, 12, 12)) / (1 + np.arange(12)) ** 0.5
    fields = scipy.fft.idctn(np.pad(spectrum, ((0, 0), (0, side - 12), (0, side - 12))), axes=(1, 2), norm="ortho")
    fields /= np.abs(fields).max(axis=(1, 2), keepdims=True)
    return (127 + 120 * fields).astype(np.uint8)


def test_the_hash_is_that_of_scipys_cosine_transform() -> None:
    thumbnails = smooth(np.random.default_rng(1), 50)
    for image, value in zip(thumbnails, perceptual_hashes(thumbnails).tolist(), strict=True):
        low = scipy.fft.dctn(image.astype(float), norm="ortho")[1:9, 1:9].ravel()
        bits = "".join("1" if coefficient > np.median(low) else "0" for coefficient in low)
        assert f"{value:064b}" == bits


def test_light_and_contrast_leave_the_hash_almost_alone_and_another_image_does_not() -> None:
    images = smooth(np.random.default_rng(2), 20, side=64)
    thumbnails = np.stack([thumbnail(image) for image in images])
    darker = np.stack([thumbnail((image * 0.6 + 10).astype(np.uint8)) for image in images])
    same = np.bitwise_count(perceptual_hashes(thumbnails) ^ perceptual_hashes(darker))
    other = np.bitwise_count(perceptual_hashes(thumbnails) ^ perceptual_hashes(np.roll(thumbnails, 1, axis=0)))
    assert same.max() <= 8 < other.min()
    assert correlations(thumbnails, darker).min() > 0.99


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 16), st.integers(0, 60))
def test_pairs_are_those_that_comparing_all_with_all_finds(seed: int, max_bits: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, max(1, count // 6), dtype=np.uint64)[
        generator.integers(0, max(1, count // 6), count)
    ]
    for _ in range(max_bits):
        hashes ^= np.uint64(1) << generator.integers(0, 64, count).astype(np.uint64)
    thumbnails = smooth(generator, 3)[generator.integers(0, 3, count)]
    brute = [
        (left, right)
        for left in range(count)
        for right in range(left + 1, count)
        if int(hashes[left] ^ hashes[right]).bit_count() <= max_bits
        and np.corrcoef(thumbnails[left].ravel(), thumbnails[right].ravel())[0, 1] >= 0.97
    ]
    found = near_duplicate_pairs(hashes, thumbnails.__getitem__, max_bits, 0.97)
    assert [tuple(pair) for pair in found.tolist()] == brute


def test_pairs_of_two_known_slices_are_not_looked_for() -> None:
    hashes, same = np.zeros(6, np.uint64), smooth(np.random.default_rng(3), 1)
    found = near_duplicate_pairs(hashes, lambda rows: same.repeat(len(rows), axis=0), 8, 0.9, first_new=4)
    assert sorted(map(tuple, found.tolist())) == [
        (left, right) for left in range(6) for right in range(left + 1, 6) if right >= 4
    ]


def test_slices_of_one_grey_value_are_blank_and_a_picture_is_not() -> None:
    grey = np.full((3, 32, 32), 128, np.uint8)
    assert is_blank(grey).all()
    assert not is_blank(smooth(np.random.default_rng(3), 4)).any()


def test_thumbnails_come_back_by_row_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    thumbnails = smooth(np.random.default_rng(3), 5)
    ThumbnailFile(tmp_path / "file", 0).append(thumbnails)
    again = ThumbnailFile(tmp_path / "file", 3)
    again.append(thumbnails[4:])
    assert np.array_equal(again(np.array([3, 0, 2])), thumbnails[[4, 0, 2]])
    assert len(again(np.empty(0, np.int64))) == 0


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    generator = np.random.default_rng(4)
    hashes = generator.integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[70_000:70_010] = hashes[:10] ^ np.uint64(0b10000001)
    same = smooth(generator, 1)
    assert len(near_duplicate_pairs(hashes, lambda rows: same.repeat(len(rows), axis=0), 6, 0.97)) == 10


@pytest.mark.parametrize("shape", [(40, 40), (9, 200), (40, 40, 3)])
def test_any_slice_has_a_thumbnail(shape: tuple[int, ...]) -> None:
    assert thumbnail(np.zeros(shape, np.uint8)).shape == (32, 32)
