"""Preprocessing: the same bits whatever stands beside an image, in the channel order that a model expects."""

from dataclasses import asdict, replace

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.artifacts import _plain
from scanloop.embedding.preprocess import Preprocess, preprocess_from

PLAIN = Preprocess(archive_px=64, input_px=32)


def draw(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels == 3 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([1, 3]), st.integers(16, 48))
def test_any_image_becomes_a_square_of_the_models_side(height: int, width: int, channels: int, side: int) -> None:
    inputs = replace(PLAIN, input_px=side)([draw(height, width, channels)])
    assert inputs.shape == (1, 3, side, side)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()


def test_an_image_of_the_right_size_is_only_normalised() -> None:
    image = draw(32, 32)
    expected = (image.astype(np.float64) - np.array(PLAIN.mean)) / np.array(PLAIN.std)
    np.testing.assert_allclose(PLAIN([image])[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-5)


def test_the_centre_is_kept_and_the_sides_are_cropped() -> None:
    wide = np.zeros((32, 96), np.uint8)
    wide[:, 32:64] = draw(32, 32, 1)
    np.testing.assert_array_equal(replace(PLAIN, archive_px=256).square(wide)[..., 0], wide[:, 32:64])


def test_grey_becomes_three_equal_channels() -> None:
    grey = draw(40, 50, 1)
    square = PLAIN.square(grey)
    assert (square[..., 0] == square[..., 1]).all()
    np.testing.assert_array_equal(square, PLAIN.square(np.repeat(grey[..., None], 3, axis=2)))


def test_blue_comes_first_where_the_model_wants_it() -> None:
    image = draw(32, 32)
    caffe = Preprocess(archive_px=64, input_px=32, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), bgr=True)
    blue, green, red = caffe([image])[0]
    np.testing.assert_array_equal(blue, image[..., 2] - np.float32(104))
    np.testing.assert_array_equal(green, image[..., 1] - np.float32(117))
    np.testing.assert_array_equal(red, image[..., 0] - np.float32(123))


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    images = [draw(30 + 7 * index, 60, 1 + 2 * (index % 2), seed=index) for index in range(5)]
    together = PLAIN(images)
    for image, row in zip(images, together, strict=True):
        np.testing.assert_array_equal(PLAIN([image])[0], row)


def test_an_original_and_its_shrunk_copy_in_the_archive_give_the_same_input() -> None:
    original = draw(200, 128)
    archived = np.asarray(PIL.Image.fromarray(original).resize((64, 100), PIL.Image.Resampling.BOX))
    np.testing.assert_array_equal(PLAIN([original]), PLAIN([archived]))


@pytest.mark.parametrize("preprocess", [PLAIN, replace(PLAIN, bgr=True, mean=(1.0, 2.0, 3.0))])
def test_it_survives_json_among_other_keys(preprocess: Preprocess) -> None:
    assert preprocess_from(_plain(asdict(preprocess)) | {"min_side_px": 8}) == preprocess
