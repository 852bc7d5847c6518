"""Semi-supervised methods on frozen features: what each makes of four opinions, and when the policy takes none."""

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import Head, TunedHead, fit_head, tune_head
from scanloop.learning.semisupervised import mixture as mixture_module
from scanloop.learning.semisupervised import policy
from scanloop.learning.semisupervised.consensus import consensus
from scanloop.learning.semisupervised.method import Targets, fit_on_targets
from scanloop.learning.semisupervised.opinions import Opinions


def clouds(rows: int, seed: int, distance: float = 3.0, dimension: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Two long clouds side by side, float16, and the class of each row."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    vectors = draw.normal(size=(rows, dimension))
    vectors[:, 0] += distance * (labels - 0.5)
    vectors[:, 1] *= 4
    return vectors.astype(np.float16), labels.astype(np.int64)


def known_of(vectors: np.ndarray, labels: np.ndarray) -> Known:
    ids = np.array([f"known-{row}" for row in range(len(labels))], dtype=object)
    return Known(ids, vectors, labels, ids, np.ones(len(labels), bool))


def pool_of(vectors: np.ndarray) -> Pool:
    ids = np.array([f"pool-{row}" for row in range(len(vectors))], dtype=object)
    return Pool(ids, vectors, ids)


def material(labelled: int = 20, unlabelled: int = 120, seed: int = 0) -> tuple[TunedHead, Known, Pool, np.ndarray]:
    vectors, labels = clouds(labelled + unlabelled, seed)
    known = known_of(vectors[:labelled], labels[:labelled])
    return tune_head(known, 2, 4, seed), known, pool_of(vectors[labelled:]), labels[labelled:]


@pytest.mark.parametrize("name", policy.METHODS)
def test_soft_labels_are_probabilities_and_the_input_is_left_alone(name: str) -> None:
    tuned, known, pool, _ = material()
    before = known.vectors.copy(), known.labels.copy(), pool.vectors.copy()
    targets = policy.METHODS[name](Opinions(tuned, known, pool))
    assert targets.probabilities.shape == (120, 2)
    np.testing.assert_allclose(targets.probabilities.sum(axis=1), 1, atol=1e-9)
    assert (targets.probabilities >= 0).all()
    assert (targets.weights >= 0).all()
    for old, new in zip(before, (known.vectors, known.labels, pool.vectors), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", policy.METHODS)
def test_permuting_the_pool_permutes_the_soft_labels(name: str) -> None:
    tuned, known, pool, _ = material()
    order = np.random.default_rng(1).permutation(len(pool.vectors))
    shuffled = Pool(pool.slice_ids[order], pool.vectors[order], pool.groups[order])
    straight, other = (policy.METHODS[name](Opinions(tuned, known, rows)) for rows in (pool, shuffled))
    np.testing.assert_allclose(other.probabilities, straight.probabilities[order], atol=1e-6)
    np.testing.assert_allclose(other.weights, straight.weights[order])


def test_without_a_pool_every_head_is_the_supervised_one_to_the_bit() -> None:
    tuned, known, pool, _ = material()
    for head in policy.heads(tuned, known, pool.without(pool.groups)).values():
        np.testing.assert_array_equal(head.weights, tuned.head.weights)
        np.testing.assert_array_equal(head.bias, tuned.head.bias)


def test_rows_that_weigh_nothing_change_nothing() -> None:
    tuned, known, pool, _ = material()
    nothing = Targets(np.full((120, 2), 0.5), np.zeros(120))
    assert fit_on_targets(tuned, known, pool, nothing) is tuned.head


def test_a_sure_soft_label_counts_as_that_label() -> None:
    tuned, known, pool, truth = material()
    weights = np.where(np.arange(120) < 30, 1.0, 0.0)
    head = fit_on_targets(tuned, known, pool, Targets(np.eye(2)[truth], weights))
    vectors = np.concatenate([known.vectors, pool.vectors[:30]])
    order = np.argsort(truth[:30], kind="stable")  # the rows of one class come before those of the next
    expected = fit_head(
        np.concatenate([known.vectors, pool.vectors[:30][order]]),
        np.concatenate([known.labels, truth[:30][order]]), 2, tuned.c, np.ones(len(vectors)),
    )  # fmt: skip
    np.testing.assert_allclose(head.weights, expected.weights, rtol=1e-6)


def test_soft_labels_minimise_the_weighted_cross_entropy() -> None:
    """Against scikit-learn's objective, written out: no small step from the head's weights is better."""
    tuned, known, pool, _ = material(seed=3)
    draw = np.random.default_rng(3)
    soft = draw.uniform(size=120)
    targets = Targets(np.stack([1 - soft, soft], axis=1), draw.uniform(size=120))
    head = fit_on_targets(tuned, known, pool, targets)
    stacked = np.concatenate([known.vectors, pool.vectors, pool.vectors]).astype(np.float64)
    mean, std = stacked.mean(axis=0), stacked.std(axis=0)

    def objective(slope: np.ndarray, bias: float) -> float:
        def loss(vectors: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
            z = (vectors.astype(np.float64) - mean) / std @ slope + bias
            return float((weights * (positive * np.logaddexp(0, -z) + (1 - positive) * np.logaddexp(0, z))).sum())

        rows = loss(known.vectors, known.labels, np.ones(20)) + loss(pool.vectors, soft, targets.weights)
        return tuned.c * rows + 0.5 * float(slope @ slope)

    slope = (head.weights[:, 1] - head.weights[:, 0]) * std
    bias = head.bias[1] - head.bias[0] + mean / std @ slope
    best = objective(slope, bias)
    for _ in range(50):
        step = draw.normal(size=9) * 0.01
        assert objective(slope + step[:8], bias + step[8]) >= best - 1e-6


def test_labels_spread_over_each_cloud_from_two_labels_each() -> None:
    vectors, labels = clouds(200, seed=5, distance=12.0, dimension=2)
    known, pool = known_of(vectors[:4], labels[:4]), pool_of(vectors[4:])
    tuned = TunedHead(Head(np.zeros((2, 2)), np.zeros(2)), 1.0, 1.0, np.zeros((4, 2)))
    spread = Opinions(tuned, known, pool).graph
    assert (spread.argmax(axis=1) == labels[4:]).mean() > 0.97


def test_where_no_label_reaches_the_head_is_asked() -> None:
    near, far = np.random.default_rng(0).normal(size=(2, 30, 4))
    known = known_of(near[:4].astype(np.float16), np.array([0, 1, 0, 1]))
    head = Head(np.zeros((4, 2)), np.array([0.0, np.log(3.0)]))
    pool = pool_of(np.concatenate([near[4:], far + 500]).astype(np.float16))
    spread = Opinions(TunedHead(head, 1.0, 1.0, np.zeros((4, 2))), known, pool).graph
    np.testing.assert_allclose(spread[-30:, 1], 0.75)
    assert not np.allclose(spread[:26, 1], 0.75)


def test_both_experts_must_say_so_for_a_sharp_soft_label() -> None:
    tuned, known, pool, _ = material()
    opinions = Opinions(tuned, known, pool)
    opinions.__dict__["head"] = np.tile([[0.9, 0.1]], (120, 1))
    opinions.__dict__["graph"] = np.where(np.arange(120)[:, None] < 60, [[0.9, 0.1]], [[0.1, 0.9]])
    sure = consensus(opinions).probabilities[:, 0]
    np.testing.assert_allclose(sure[:60], 0.81 / 0.82)
    np.testing.assert_allclose(sure[60:], 0.5)


def evidence(right: dict[str, float]) -> policy.Evidence:
    """Ways that give the true class this probability on every one of 20 rows."""
    labels = np.arange(20) % 2
    names = (policy.SUPERVISED, *policy.METHODS)
    given = {name: np.where(np.eye(2)[labels] == 1, right.get(name, 0.4), 1 - right.get(name, 0.4)) for name in names}
    return policy.Evidence({name: values[None] for name, values in given.items()}, labels)


@pytest.mark.parametrize(
    ("right", "chosen"),
    [
        ({"supervised": 0.7}, "supervised"),
        ({"supervised": 0.7, "spreading": 0.8}, "spreading"),
        ({"supervised": 0.7, "spreading": 0.9, "consensus": 0.8}, "consensus"),  # the order is fixed beforehand
        ({"supervised": 0.7, "consensus": 0.6, "self_training": 0.9}, "supervised"),  # hard labels are not tried
    ],
)
def test_the_first_method_that_loses_nothing_is_taken(right: dict[str, float], chosen: str) -> None:
    choice = policy.choose(evidence(right))
    assert choice.name == chosen
    assert list(choice.gains) == list(policy.TRIED)
    assert "out of fold" in choice.reason


def test_a_fold_learns_from_nothing_of_the_groups_that_it_is_tried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither labelled rows nor pool rows of these groups, of which here each labelled one has one in the pool."""
    _, known, pool, _ = material(labelled=24, unlabelled=60)
    vectors, groups = np.concatenate([pool.vectors, known.vectors]), np.concatenate([pool.groups, known.groups])
    twins = Pool(groups, vectors, groups)
    seen, heads = [], policy.heads

    def watched(tuned: TunedHead, train: Known, rest: Pool, *names: Any) -> dict[str, Head]:
        seen.append((set(train.groups), set(rest.groups)))
        return heads(tuned, train, rest, *names)

    monkeypatch.setattr(policy, "heads", watched)
    found = policy.gather(known, twins, 2, 4, 1, 0)
    held_out = [set(known.groups) - train for train, _ in seen]
    assert sorted(name for fold in held_out for name in fold) == sorted(known.groups)
    for fold, (_, rest) in zip(held_out, seen, strict=True):
        assert rest == set(groups) - fold
    assert found.probabilities.keys() == {policy.SUPERVISED, *policy.TRIED}
    assert all(np.isfinite(values).all() for values in found.probabilities.values())


def test_the_clouds_of_hard_labels_are_those_of_linear_discriminant_analysis() -> None:
    vectors, labels = clouds(300, seed=2)
    rows, queries = vectors[:200].astype(np.float64), vectors[200:].astype(np.float64)
    scores = mixture_module._scores(rows, np.eye(2)[labels[:200]], np.ones(200), queries)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=mixture_module.SHRINKAGE).fit(rows, labels[:200])
    np.testing.assert_allclose(np.exp(scores), model.predict_proba(queries), atol=1e-6)


def test_a_weight_of_two_is_two_rows_to_the_clouds() -> None:
    vectors, labels = clouds(60, seed=4)
    rows, given = vectors.astype(np.float64), np.eye(2)[labels]
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = np.concatenate([rows, rows[:20]]), np.concatenate([given, given[:20]])
    np.testing.assert_allclose(
        mixture_module._scores(rows, given, weights, rows), mixture_module._scores(*twice, np.ones(80), rows), atol=1e-9
    )


def test_the_pool_moves_the_clouds_where_labels_are_few() -> None:
    """Four labels place the clouds badly; the pool, whose truth nobody saw, places them well."""
    right = {"mixture": 0.0, "labels": 0.0}
    for seed in range(10):
        vectors, labels = clouds(404, seed, distance=4.0)
        known, pool = known_of(vectors[:4], labels[:4]), pool_of(vectors[4:])
        tuned = TunedHead(Head(np.zeros((8, 2)), np.zeros(2)), 1.0, 1.0, np.zeros((4, 2)))
        opinions = Opinions(tuned, known, pool)
        opinions.__dict__["graph"] = np.full((400, 2), 0.5)  # the clouds alone
        found = mixture_module.mixture(opinions).probabilities.argmax(axis=1)
        parts = opinions.components
        alone = mixture_module._scores(parts[:4], np.eye(2)[labels[:4]], np.ones(4), parts[4:]).argmax(axis=1)
        right["mixture"] += (found == labels[4:]).mean() / 10
        right["labels"] += (alone == labels[4:]).mean() / 10
    assert right["mixture"] > right["labels"] + 0.05
