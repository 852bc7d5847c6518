"""What compiling folds and rounds: normalisation, strides, bounds and biases."""

import numpy as np
import pytest
import torch
from drawn import draw
from torch.nn.functional import conv2d

from scanloop.embedding.compiled import fold_normalisation, fold_stride
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.equalisation import equalise
from scanloop.embedding.pixels import pixel_blocks
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.quantisation import best_bounds, calibrate, fused, owed, rounded_to_bytes, wide_bounds
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
    graph = fused(encoder)
    calibration = calibrate(graph, Preprocess(input_px=64)(draw(6)))
    convolutions = {name for name, module in graph.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert len(calibration.means) == len(convolutions) == 20
    signed = {name for name, (low, _) in calibration.bounds.items() if low < 0}
    assert len(signed) == 3  # the shortcuts that change the width come without a ReLU
    assert len(calibration.bounds) == 3 + 1 + 8 + 7  # with the stem's output, the blocks' insides and their outputs


def test_wide_bounds_hold_the_sample_with_a_margin() -> None:
    assert wide_bounds(torch.tensor([0.0, 4.0])) == (0, 5)
    assert wide_bounds(torch.tensor([-8.0, 4.0])) == (-10, 10)
    assert wide_bounds(torch.zeros(3))[1] > 0


def ranges(graph: torch.fx.GraphModule, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Largest value of each channel of each convolution's output, 0 at the least."""
    found: dict[str, torch.Tensor] = {}
    for name, module in graph.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, __, values, name=name: found.update({name: values.clamp(min=0).amax(dim=(0, 2, 3))})
            )
    with torch.inference_mode():
        graph(inputs)
    return found


@pytest.mark.parametrize(("name", "equalised"), [("squeezenet1_1", 23), ("resnet18", 8), ("smallcnn", 3)])
def test_equalised_channels_have_closer_ranges_and_the_vectors_stay_the_same(name: str, equalised: int) -> None:
    """What only convolutions read is equalised: in ResNet-18 the inside of each of its 8 blocks."""
    encoder, inputs = new_encoder(name, seed=1).eval(), torch.from_numpy(Preprocess(input_px=64)(draw(6)))
    plain, graph = fused(encoder), fused(encoder)
    equalise(graph, inputs.numpy())
    with torch.inference_mode():
        torch.testing.assert_close(graph(inputs), plain(inputs), rtol=1e-3, atol=1e-4)
    before, after = ranges(plain, inputs), ranges(graph, inputs)
    spread = {key: (before[key] / before[key].max()).log() for key in before}
    closer = [key for key, old in before.items() if ((old - after[key]).abs() > 0.001 * old.max()).any()]
    assert len(closer) == equalised
    for key in closer:
        loud = before[key] > 0.02 * before[key].max()
        now = (after[key] / after[key].max()).log()
        assert now[loud].std() < 0.9 * spread[key][loud].std(), key


@pytest.mark.parametrize(("name", "left"), [("squeezenet1_1", 8), ("resnet18", 0), ("resnet50", 0), ("smallcnn", 0)])
def test_what_narrows_without_a_shortcut_past_it_stays_in_bfloat16(name: str, left: int) -> None:
    graph = fused(new_encoder(name, seed=1).eval())
    calibration = calibrate(graph, Preprocess(input_px=64)(draw(2)))
    modules = dict(graph.named_modules())
    convolutions = {n.name: n for n in graph.graph.nodes if isinstance(modules.get(str(n.target)), torch.nn.Conv2d)}
    exact = convolutions.keys() - calibration.means.keys()
    assert len(exact) == left
    assert all("squeeze" in one for one in exact)
    if left:  # and what they read is not rounded: only what they give is
        assert len(calibration.bounds) == left
        assert all(one.endswith("squeeze_activation") for one in calibration.bounds)
