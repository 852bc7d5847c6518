"""Views of a slice: what a radiologist would call the same, by modality and strength."""

import pytest
import torch

from scanloop.pretraining.augment import PRESETS, Augmentation, augment

STILL = Augmentation(scale=(1.0, 1.0), rotation_degrees=0, flip=0, brightness=0, contrast=0, noise=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int = 12, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(9))


def test_views_stay_in_range_keep_their_shape_and_leave_the_original_alone() -> None:
    images = photographs()
    before = images.clone()
    views = augment(images, Augmentation(brightness=0.9, contrast=0.9, noise=0.5), generator())
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert 0 <= views.min() < views.max() <= 1
    assert torch.equal(images, before)


def test_a_seed_decides_the_views() -> None:
    images = photographs()
    first, again = (augment(images, Augmentation(), generator(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(images, Augmentation(), generator(2)))
    both = generator(1)
    assert not torch.equal(augment(images, Augmentation(), both), augment(images, Augmentation(), both))


def test_with_every_range_closed_a_view_is_its_original() -> None:
    images = photographs()
    torch.testing.assert_close(augment(images, STILL, generator()), images, rtol=0, atol=1e-5)


def test_a_flip_is_left_to_right() -> None:
    images = photographs()
    flipped = augment(images, Augmentation(**(vars(STILL) | {"flip": 1.0})), generator())
    torch.testing.assert_close(flipped, images.flip(-1), rtol=0, atol=1e-5)


def test_no_view_is_ever_upside_down() -> None:
    ramp = torch.linspace(0, 1, 32)[:, None].expand(3, 32, 32).repeat(400, 1, 1, 1)  # dark above, bright below
    views = augment(ramp, Augmentation(), generator(3))
    assert (views[:, :, -8:].mean(dim=(1, 2, 3)) > views[:, :, :8].mean(dim=(1, 2, 3)) + 0.1).all()


def test_half_of_the_views_are_mirrored() -> None:
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32).repeat(400, 1, 1, 1)  # dark on the left, bright on the right
    views = augment(ramp, Augmentation(), generator(3))
    brighter_right = (views[..., -8:].mean(dim=(1, 2, 3)) > views[..., :8].mean(dim=(1, 2, 3))).float().mean()
    assert 0.4 < brighter_right < 0.6


@pytest.mark.parametrize("preset", PRESETS, ids="-".join)
def test_no_preset_turns_far_nor_mirrors_what_has_a_side(preset: tuple[str, str]) -> None:
    ranges = PRESETS[preset]
    assert ranges.rotation_degrees <= 10
    assert ranges.flip == (0.0 if preset[0] in ("xray", "ct") else 0.5)
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32).repeat(200, 1, 1, 1)
    views = augment(ramp, ranges, generator(3))
    brighter_right = (views[..., -8:].mean(dim=(1, 2, 3)) > views[..., :8].mean(dim=(1, 2, 3))).float().mean()
    assert brighter_right == 1.0 if ranges.flip == 0 else 0.35 < brighter_right < 0.65


@pytest.mark.parametrize("modality", ["mri", "ct", "xray", "ultrasound"])
def test_weak_views_stay_nearer_to_their_slice_than_strong_ones(modality: str) -> None:
    smooth = torch.nn.functional.interpolate(torch.rand(200, 1, 4, 4, generator=generator()), 32, mode="bilinear")
    weak, strong = (
        (augment(smooth, PRESETS[modality, strength], generator(1)) - smooth).abs().mean()
        for strength in ("weak", "strong")
    )
    assert weak < 0.8 * strong


def test_a_grey_slice_is_changed_as_its_three_equal_channels_would_be_but_for_the_grain() -> None:
    grey = torch.rand(6, 1, 16, 16, generator=generator(2))
    ranges = Augmentation(noise=0.0)
    colour = augment(grey.expand(-1, 3, -1, -1), ranges, generator(4))
    torch.testing.assert_close(augment(grey, ranges, generator(4)).expand(-1, 3, -1, -1), colour)
