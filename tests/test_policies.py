"""Each acquisition policy against a plain way of saying what it does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.acquisition import auto, cluster_margin, dropquery, entropy, k_center, margin, probcover, typiclust
from scanloop.acquisition.clusters import representatives
from scanloop.acquisition.situation import Situation, unit_rows
from scanloop.embedding.blocks import nearest_centre


def crowds(sizes: list[int], seed: int = 0, spread: float = 0.05, dimension: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Points around directions that are at right angles, and the crowd of each."""
    draw = np.random.default_rng(seed)
    crowd = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(dimension)[crowd] + spread * draw.normal(size=(len(crowd), dimension)), crowd


def situation(vectors: np.ndarray, labelled: np.ndarray, labels: list[int], **others: object) -> Situation:
    """A pool in which each image is a group of its own, and a head that knows nothing."""
    n, even = len(vectors), np.full((len(vectors), 2), 0.5)
    plain = Situation(
        even, vectors, np.arange(n), np.ones(n, dtype=bool),
        unit_rows(labelled, np.arange(len(labelled))), np.array(labels), lambda part: even[: len(part)], 8, 0,
    )  # fmt: skip
    return replace(plain, **others)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 12), st.integers(2, 4), st.integers(0, 999))
def test_entropy_and_margin_take_the_most_doubtful_image_of_each_group_in_order(
    n: int, count: int, classes: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    probabilities, groups = draw.dirichlet(np.ones(classes), n), draw.integers(0, 9, n)
    pool = situation(draw.normal(size=(n, 3)), np.eye(3), [0, 1, 0], probabilities=probabilities, groups=groups)
    doubt = {
        entropy: [-sum(p * np.log(p) for p in row) for row in probabilities],
        margin: [-(sorted(row)[-1] - sorted(row)[-2]) for row in probabilities],
    }
    for policy, values in doubt.items():
        expected: list[int] = []
        for row in sorted(range(n), key=lambda row: -values[row]):
            if groups[row] not in groups[expected] and len(expected) < count:
                expected.append(row)
        assert policy.pick(pool, count).tolist() == expected


def test_what_is_not_free_is_chosen_by_no_policy() -> None:
    vectors, _ = crowds([20, 20, 20])
    pool = situation(vectors, np.eye(8)[:2], [0, 1]).without(np.arange(0, 60, 2))
    for policy in (auto, cluster_margin, dropquery, entropy, k_center, margin, probcover, typiclust):
        chosen = policy.pick(pool, 40)
        assert (chosen % 2 == 1).all()
        assert len(set(chosen)) == len(chosen) == 30, policy.__name__


def test_one_stands_for_each_crowd_the_nearest_to_its_mean_and_the_largest_first() -> None:
    vectors, crowd = crowds([9, 25, 16])
    found = representatives(vectors.astype(np.float32), np.arange(50), 3, seed=0)
    assert crowd[found].tolist() == [1, 2, 0]
    for row in found:
        members = np.flatnonzero(crowd == crowd[row])
        distances = np.linalg.norm(vectors[members] - vectors[members].mean(axis=0), axis=1)
        assert row == members[distances.argmin()]


def test_a_group_stands_for_one_crowd_only() -> None:
    vectors, crowd = crowds([10, 10])
    groups = np.where(np.arange(20) % 10 < 9, 0, np.arange(20))
    found = representatives(vectors.astype(np.float32), groups, 2, seed=0)
    assert sorted(crowd[found]) == [0, 1]
    assert len(set(groups[found])) == 2


def test_nearest_centres_are_those_of_the_plain_distances() -> None:
    draw = np.random.default_rng(0)
    points, centres = draw.normal(size=(5000, 6)), draw.normal(size=(17, 6))
    plain = ((points[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest_centre(points, centres), plain)


def test_typical_images_come_from_the_middle_of_the_largest_crowds_without_a_label() -> None:
    vectors, crowd = crowds([40, 30, 20, 10])
    outlier = -np.ones((1, 8))
    pool = situation(np.concatenate([vectors, outlier]), np.eye(8)[:1], [0])
    chosen = typiclust.pick(pool, 3)
    assert crowd[chosen].tolist() == [1, 2, 3], "crowd 0 is labelled, and an outlier is no crowd"
    for row in chosen:
        members = np.flatnonzero(crowd == crowd[row])
        points = unit_rows(vectors, members).astype(np.float64)
        distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, : typiclust.NEIGHBOURS + 1]
        assert row == members[distances.mean(axis=1).argmin()]


def test_typicality_of_a_large_crowd_is_measured_against_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    points = unit_rows(crowds([600])[0], np.arange(600))
    whole = typiclust.typicality(points, 0)
    monkeypatch.setattr(typiclust, "MOST_COMPARED", 300)
    assert np.corrcoef(whole, typiclust.typicality(points, 0))[0, 1] > 0.8


def test_doubtful_images_of_the_class_that_has_fewer_labels_are_preferred() -> None:
    draw = np.random.default_rng(0)
    share = draw.uniform(0, 1, 400)
    pool = situation(
        draw.normal(size=(400, 5)), np.eye(5), [0, 0, 0, 0, 1], probabilities=np.stack([share, 1 - share], axis=1)
    )
    chosen = cluster_margin.pick(pool, 9)
    predicted = pool.probabilities[chosen].argmax(axis=1)
    assert np.bincount(predicted).tolist() == [3, 6], "7 labels of each class then"
    assert (np.abs(2 * share[chosen] - 1) < 0.5).all(), "among the eight most doubtful a label"
    assert predicted[:3].tolist() == [1, 0, 1], "the classes take turns, so that a part of the batch is balanced too"


def test_a_class_that_is_never_predicted_leaves_its_share_to_the_others() -> None:
    vectors, _ = crowds([30, 30])
    pool = situation(vectors, np.eye(8)[:2], [0, 1], probabilities=np.tile([0.9, 0.1], (60, 1)))
    assert len(cluster_margin.pick(pool, 10)) == 10


def test_dropped_features_ask_the_head_three_times_and_the_unstable_are_chosen() -> None:
    asked = []
    draw = np.random.default_rng(0)
    vectors = np.concatenate([np.tile([3.0] * 8, (40, 1)), np.tile([-1.0, 1, -1, 1, -1, 1, -1, 1.1], (40, 1))])
    vectors += 0.01 * draw.normal(size=vectors.shape)

    def answer(part: np.ndarray) -> np.ndarray:
        asked.append(len(part))
        positive = (part.sum(axis=1) > 0).astype(float)
        return np.stack([1 - positive, positive], axis=1)

    pool = situation(vectors, np.eye(8)[:2], [0, 1], probabilities=answer(vectors), answer=answer)
    changes = dropquery.changed(pool)
    assert sum(asked) == 80 * 4
    assert changes[:40].max() == 0 or changes[:40].mean() < 0.5 < changes[40:].mean()
    assert (dropquery.pick(pool, 5) >= 40).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6))
def test_covering_picks_are_those_of_the_plain_greedy_loop(seed: int, count: int) -> None:
    vectors, _ = crowds([12, 9, 6], seed, spread=0.25)
    pool = situation(vectors, vectors[:2], [0, 1])
    points = unit_rows(vectors, np.arange(27))
    reach = 1 - probcover.radius(points, 2, 0) ** 2 / 2
    near = points @ points.T >= reach
    covered, expected = near[:2].any(axis=0), []
    while len(expected) < count and (near[:, ~covered].sum(axis=1) > 0).any():
        best = int(near[:, ~covered].sum(axis=1).argmax())
        expected.append(best)
        covered |= near[best]
    assert probcover.pick(pool, count).tolist()[: len(expected)] == expected
    assert len(probcover.pick(pool, count)) == count


def test_typical_images_come_first_and_doubtful_ones_from_five_labels_a_class_on() -> None:
    draw = np.random.default_rng(0)
    share = draw.uniform(0, 1, 200)
    pool = situation(
        draw.normal(size=(200, 5)), np.eye(5), [0, 0, 1, 1, 1], probabilities=np.stack([share, 1 - share], axis=1)
    )
    typical = typiclust.pick(pool, 5)
    assert auto.pick(pool, 3).tolist() == typiclust.pick(pool, 3).tolist()
    assert auto.pick(pool, 9)[:5].tolist() == typical.tolist()
    rich = replace(pool, labelled=np.tile(pool.labelled, (2, 1)), labels=np.tile(pool.labels, 2))
    assert auto.pick(rich, 9).tolist() == cluster_margin.pick(rich, 9).tolist()
