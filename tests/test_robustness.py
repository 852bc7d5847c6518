"""Altered images, and what a model's answers do under them."""

import io

import numpy as np
import PIL.Image
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import accuracy_score, roc_auc_score

from scanloop.evaluation.alterations import ALTERATIONS, blurred, compressed, contrasted, cropped, noised, scaled
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.robustness import Subjects, draw, robustness
from scanloop.types import Image

DRAW = np.random.default_rng(0)


def smooth(seed: int = 0, colour: bool = False) -> Image:
    """A slice with structure at every scale, in the middle of the range."""
    shape = (96, 80, 3) if colour else (96, 80)
    noise = np.random.default_rng(seed).normal(size=shape)
    field = sum(gaussian_filter(noise, (s, s, 0)[: len(shape)]) * s for s in (1, 3, 9))
    return np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [False, True])
def test_every_alteration_keeps_type_and_channels_and_moves_more_when_stronger(colour: bool) -> None:
    image, moved = smooth(colour=colour), {}
    for one in ALTERATIONS:
        altered = one(image, "a", 7)
        assert altered.dtype == np.uint8
        assert altered.shape[2:] == image.shape[2:]
        if one.kind == "crop":
            moved[one.kind, one.severity] = 1 - altered.size / image.size
        else:
            assert altered.shape == image.shape
            moved[one.kind, one.severity] = float(np.abs(altered.astype(float) - image).mean())
    assert len(moved) == 21
    for kind in {kind for kind, _ in moved}:
        assert 0 < moved[kind, 1] < moved[kind, 2] < moved[kind, 3], kind


def test_alterations_do_what_their_setting_says() -> None:
    image = smooth()
    np.testing.assert_array_equal(scaled(0.5)(image, DRAW), np.rint(image * 0.5).astype(np.uint8))
    flat = contrasted(0.4)(image, DRAW)
    assert flat.mean() == pytest.approx(image.mean(), abs=0.5)
    assert flat.std() == pytest.approx(0.4 * image.std(), rel=0.02)
    grey = np.full((400, 400), 128, np.uint8)
    assert noised(10)(grey, np.random.default_rng(1)).std() == pytest.approx(10, rel=0.02)
    np.testing.assert_array_equal(cropped(0.5)(image, DRAW), image[24:72, 20:60])
    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "JPEG", quality=40)
    np.testing.assert_array_equal(compressed(40)(image, DRAW), np.asarray(PIL.Image.open(sink)))
    plain = gaussian_filter(image.astype(float), 2.4, mode="nearest")  # Pillow's is made of box blurs
    assert np.abs(blurred(0.03)(image, DRAW) - plain).mean() < 1.0


def test_the_noise_of_a_slice_does_not_depend_on_the_others_and_differs_by_slice_and_seed() -> None:
    noise = next(one for one in ALTERATIONS if one.kind == "noise")
    first = noise(smooth(), "a", 7)
    noise(smooth(1), "b", 7)
    np.testing.assert_array_equal(noise(smooth(), "a", 7), first)
    assert (noise(smooth(), "b", 7) != first).any()
    assert (noise(smooth(), "a", 8) != first).any()


def bright(images: list[Image]) -> np.ndarray:
    """A model that calls bright slices 1."""
    share = 1 / (1 + np.exp(-(np.array([image.mean() for image in images]) - 100) / 20))
    return np.stack([1 - share, share], axis=1)


def subjects(labelled: bool = True) -> Subjects:
    generator = np.random.default_rng(3)
    levels = generator.uniform(40, 160, 60)
    images = [np.full((16, 16), level, np.uint8) for level in levels]
    labels = (levels + generator.normal(0, 15, 60) > 100).astype(np.int64)
    groups = np.array([f"g{row // 2}" for row in range(60)])
    ids = [f"s{row}" for row in range(60)]
    return Subjects("test" if labelled else "unseen", ids, groups, labels if labelled else None, images)


def test_changes_are_those_of_the_metrics_on_the_same_images() -> None:
    given = subjects()
    found = robustness(bright, given, Resampling(200), 10)
    assert (found["images"], found["groups"], found["basis"]) == (60, 30, "test")
    before = bright(given.images)
    assert len(found["alterations"]) == 21
    for row in found["alterations"]:
        alteration = next(one for one in ALTERATIONS if (one.kind, one.severity) == (row["kind"], row["severity"]))
        after = bright([alteration(image, f"s{number}", 0) for number, image in enumerate(given.images)])
        right = [accuracy_score(given.labels, values.argmax(axis=1)) for values in (before, after)]
        area = [roc_auc_score(given.labels, values[:, 1]) for values in (before, after)]
        changes = row["changes"]
        assert changes["accuracy"].value == pytest.approx(right[1] - right[0])
        assert changes["auroc"].value == pytest.approx(area[1] - area[0])
        assert row["same_answer"].value == pytest.approx((after.argmax(axis=1) == before.argmax(axis=1)).mean())
        assert row["same_answer"].low <= row["same_answer"].value <= row["same_answer"].high
        expected = (after.max(axis=1) - before.max(axis=1)).mean()
        assert row["confidence_change"].value == pytest.approx(expected)
    dark = [row for row in found["alterations"] if row["kind"] == "darker"]
    assert dark[2]["changes"]["accuracy"].high < 0  # half as bright, and most become the other class


def test_without_labels_only_the_answers_are_compared() -> None:
    found = robustness(bright, subjects(labelled=False), Resampling(100), 10)
    assert found["reference"] == {}
    assert all(row["changes"] == {} for row in found["alterations"])
    assert "No labelled image was kept" in found["explanation"]


def test_at_most_so_many_images_are_drawn_each_once_and_by_seed() -> None:
    rows = draw(1000, 40, 3)
    assert len(set(rows)) == 40
    assert rows.tolist() == sorted(rows)
    np.testing.assert_array_equal(rows, draw(1000, 40, 3))
    assert (rows != draw(1000, 40, 4)).any()
    assert draw(5, 40, 3).tolist() == [0, 1, 2, 3, 4]
