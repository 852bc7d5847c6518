"""What compiling folds and rounds: normalisation, strides, bounds and biases."""

import numpy as np
import pytest
import torch
from drawn import draw
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import conv2d

from scanloop.embedding.compiled import fold_normalisation, fold_stride
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.pixels import pixel_blocks
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.quantisation import best_bounds, calibrate, owed, rounded_to_bytes
from scanloop.embedding.weights import CAFFE, PLAIN


@pytest.mark.parametrize("preprocess", [Preprocess(), CAFFE, PLAIN], ids=["imagenet", "caffe", "plain"])
def test_folded_weights_on_bytes_equal_the_weights_on_normalised_images_up_to_the_border(
    preprocess: Preprocess,
) -> None:
    preprocess = Preprocess(64, 32, preprocess.mean, preprocess.std, preprocess.bgr)
    slices, rng = draw(6), np.random.default_rng(2)
    weight = rng.normal(size=(5, 3, 7, 7)).astype(np.float32)
    folded = fold_normalisation(weight, preprocess, grey=False)
    exact = np.stack([preprocess.square(image) for image in slices])
    marked = np.concatenate([exact, np.full((*exact.shape[:3], 1), 255, np.uint8)], axis=-1)
    images = torch.from_numpy(marked).permute(0, 3, 1, 2).float()
    on_bytes = conv2d(images, torch.from_numpy(folded.astype(np.float32)), stride=2, padding=3)
    expected = conv2d(torch.from_numpy(preprocess(slices)), torch.from_numpy(weight), stride=2, padding=3)
    torch.testing.assert_close(on_bytes, expected, rtol=1e-4, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize(("kernel", "pad"), [(7, 3), (3, 1), (3, 0), (5, 2), (2, 0), (1, 0)])
def test_a_stride_of_one_over_blocks_equals_a_stride_of_two_over_pixels(kernel: int, pad: int, grey: bool) -> None:
    preprocess, rng = Preprocess(64, 32), np.random.default_rng(4)
    slices = [image for image in draw(8) if (image.ndim == 2) == grey]
    weight = rng.normal(size=(5, 3, kernel, kernel)).astype(np.float32)
    blocks = pixel_blocks(slices, preprocess)
    found, before = fold_stride(fold_normalisation(weight, preprocess, grey), [pad, pad])
    squares = torch.from_numpy(np.stack([unblocked(one) for one in blocks])).permute(0, 3, 1, 2).float()
    scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    expected = conv2d((squares - next(scale)) / next(scale), torch.from_numpy(weight), stride=2, padding=pad)
    wide = torch.nn.functional.pad(torch.from_numpy(blocks).permute(0, 3, 1, 2).float(), (before[1], 4, before[0], 4))
    on_blocks = conv2d(wide, torch.from_numpy(found))[..., : expected.shape[2], : expected.shape[3]]
    torch.testing.assert_close(on_blocks, expected, rtol=1e-4, atol=1e-3 * float(expected.abs().max()))


def unblocked(blocks: np.ndarray) -> np.ndarray:
    """RGB (s, s, 3) of blocks (s / 2, s / 2, c), pixel by pixel."""
    assert (blocks[..., -4:] == 255).all()
    colours = (blocks.shape[2] - 4) // 4
    square = np.zeros((2 * len(blocks), 2 * len(blocks), 3), np.uint8)
    for row in range(2):
        for column in range(2):
            first = (2 * row + column) * colours
            square[row::2, column::2] = blocks[..., first : first + colours]
    return square


@pytest.mark.parametrize("input_px", [32, 40, 64])
def test_blocks_hold_the_squares_of_the_preprocessing_within_one_grey_level(input_px: int) -> None:
    preprocess = Preprocess(archive_px=42, input_px=input_px)
    for grey in (True, False):
        slices = [image for image in draw(23) if (image.ndim == 2) == grey]
        found = np.stack([unblocked(one) for one in pixel_blocks(slices, preprocess)]).astype(int)
        expected = np.stack([preprocess.square(image) for image in slices]).astype(int)
        assert np.abs(found - expected).max() <= 1
        assert np.abs(found - expected).mean() < 0.05


def test_bounds_cut_off_a_lonely_large_value_and_keep_an_even_spread() -> None:
    even = torch.linspace(0, 10, 200_000)
    assert best_bounds(even) == pytest.approx((0, 10), rel=0.03)
    low, high = best_bounds(torch.cat([even, torch.tensor([15.0])]))
    assert low == 0
    assert 9.5 < high < 14
    assert best_bounds(torch.linspace(-4, 2, 5000)) == pytest.approx((-4, 4), rel=0.03)
    assert best_bounds(torch.zeros(8))[1] > 0


def test_the_bias_pays_what_rounded_weights_owe_in_the_mean() -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(4, 6, 3, 3)).astype(np.float32)
    rounded, largest = rounded_to_bytes(weight)
    assert np.abs(rounded - weight).max() <= largest.max() / 127 / 2 + 1e-6
    assert len(np.unique(np.rint(rounded / largest * 127))) <= 255
    images = torch.from_numpy(rng.gamma(2, size=(8, 6, 30, 30)).astype(np.float32))
    excess = conv2d(images, torch.from_numpy(rounded - weight)).mean(dim=(0, 2, 3))
    np.testing.assert_allclose(owed(weight, rounded, images.mean(dim=(0, 2, 3))), excess, atol=0.02)


def test_calibration_bounds_what_every_later_convolution_reads_and_every_shortcut() -> None:
    encoder = new_encoder("resnet18", seed=1).eval()
    calibration = calibrate(encoder, Preprocess(input_px=64)(draw(6)))
    graph = fuse(encoder)
    convolutions = {name for name, module in graph.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert len(calibration.means) == len(convolutions) == 20
    signed = {name for name, (low, _) in calibration.bounds.items() if low < 0}
    assert len(signed) == 3  # the shortcuts that change the width come without a ReLU
    assert len(calibration.bounds) == 3 + 1 + 8 + 7  # with the stem's output, the blocks' insides and their outputs
