"""Acquisition: the images that are worth a label, and never a cent more than the budget."""

import shutil
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain, step_named
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.acquisition.entropy import entropy
from scanloop.acquisition.k_center import k_center_greedy
from scanloop.acquisition.policy import affordable
from scanloop.artifacts import read_json, read_table, write_table
from scanloop.config import AcquireConfig, OracleConfig
from scanloop.errors import ArtifactError
from scanloop.steps.acquire import acquire
from scanloop.steps.oracle import oracle


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 10), st.integers(0, 999))
def test_entropy_lies_between_certain_and_no_idea(classes: int, rows: int, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), rows)
    values = entropy(probabilities)
    expected = [-sum(p * np.log(p) for p in row if p > 0) / np.log(classes) for row in probabilities]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert ((values >= 0) & (values <= 1)).all()


def test_entropy_is_zero_when_certain_and_one_when_uniform() -> None:
    np.testing.assert_array_equal(entropy(np.eye(3)), 0)
    np.testing.assert_allclose(entropy(np.full((2, 4), 0.25)), 1)


def naive_k_center(points: np.ndarray, covered: np.ndarray, groups: np.ndarray, count: int) -> tuple[list, list]:
    """Point by point, distance by distance."""
    picked: list[int] = []
    distances: list[float] = []
    while len(picked) < count:
        best, best_distance = -1, -1.0
        for index, point in enumerate(points):
            if any(groups[index] == groups[other] for other in picked):
                continue
            reached = [float(np.sqrt(((point - centre) ** 2).sum())) for centre in [*covered, *points[picked]]]
            if not reached:
                reached = [float(np.sqrt(((point - points.mean(axis=0)) ** 2).sum()))]
            if min(reached) > best_distance + 1e-12:
                best, best_distance = index, min(reached)
        if best < 0:
            break
        picked.append(best)
        distances.append(best_distance)
    return picked, distances


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.integers(1, 8), st.integers(1, 12), st.integers(0, 999))
def test_k_center_greedy_equals_a_naive_implementation(n: int, m: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    points, covered, groups = draw.normal(size=(n, 3)), draw.normal(size=(m, 3)), draw.integers(0, 10, n)
    picked, distances = k_center_greedy(points, covered, groups, count)
    expected, reached = naive_k_center(points, covered, groups, count)
    assert picked.tolist() == expected
    np.testing.assert_allclose(distances, reached, atol=1e-9)
    assert len(set(groups[picked])) == len(picked) == min(count, len(set(groups)))


def test_with_nothing_covered_the_first_is_far_from_the_middle_and_the_second_far_from_the_first() -> None:
    points = np.array([[0.0, 0], [1, 0], [10, 0], [-8, 0]])
    picked, _ = k_center_greedy(points, np.empty((0, 2)), np.arange(4), 2)
    assert picked.tolist() == [2, 3]


def test_no_candidates_and_no_count_pick_nothing() -> None:
    for points, count in ((np.empty((0, 2)), 3), (np.ones((4, 2)), 0)):
        picked, distances = k_center_greedy(points, np.ones((2, 2)), np.arange(len(points)), count)
        assert len(picked) == len(distances) == 0


def test_memory_grows_with_the_distances_and_not_with_the_dimension() -> None:
    draw = np.random.default_rng(0)
    points, covered = draw.normal(size=(1000, 256)), draw.normal(size=(500, 256))
    tracemalloc.start()
    k_center_greedy(points, covered, np.arange(1000), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # all differences at once would be a gigabyte


def test_ten_euros_buy_eighteen_labels_and_three_tenths_three() -> None:
    assert affordable(10, 0.55, 3000) == 18
    assert affordable(0.3, 0.1, 3000) == 3  # binary floats would say 2
    assert affordable(10, 0.55, 7) == 7
    assert affordable(0, 0.55, 7) == 0


cents = st.integers(0, 10**9)


@given(cents, st.integers(1, 10**6), st.integers(0, 5000))
def test_a_label_is_bought_while_the_money_lasts_to_the_cent(budget: int, price: int, most: int) -> None:
    expected = min(most, Fraction(budget, 100) // Fraction(price, 100))
    assert affordable(budget / 100, price / 100, most) == expected


@given(st.floats(0, 1e7), st.floats(1e-4, 1e4))
def test_labels_never_cost_more_than_the_budget_and_one_more_would(budget: float, price: float) -> None:
    count = affordable(budget, price, 10**15)
    exact_budget, exact_price = Fraction(str(budget)), Fraction(str(price))
    assert count * exact_price <= exact_budget < (count + 1) * exact_price


@pytest.fixture(scope="module")
def manifest(chain: Chain) -> pd.DataFrame:
    return read_table(chain["catalog"], "manifest").set_index("slice_id")


def assert_allowed(queue: pd.DataFrame, manifest: pd.DataFrame, config: AcquireConfig) -> None:
    rows = manifest.loc[queue["slice_id"]]
    assert rows["label"].isna().all()
    assert set(rows["split"]) <= {"train"}
    assert rows["group_id"].is_unique
    assert queue["rank"].tolist() == list(range(1, len(queue) + 1))
    spent = sum((Fraction(str(price)) for price in queue["price"]), Fraction(0))
    assert spent <= Fraction(str(config.budget_eur))
    assert len(queue) <= config.max_labels


def test_the_queue_asks_for_no_label_that_is_known_or_held_out_and_for_one_a_group(
    chain: Chain, manifest: pd.DataFrame
) -> None:
    queue = read_table(chain["queue"], "queue.parquet")
    assert len(queue) == 9  # 5 euros at 0.55 each
    assert_allowed(queue, manifest, PLANS["queue"][1])
    assert queue["uncertainty"].between(0, 1).all()
    assert queue["diversity"].between(0, 2).all()
    facts = read_json(chain["queue"] / "queue.json")
    assert (facts["labels"], facts["price_eur"]) == (9, 4.95)


@pytest.mark.parametrize(
    ("budget_eur", "price_per_label_eur", "max_labels", "expected"),
    [(0.0, 0.55, 3000, 0), (0.54, 0.55, 3000, 0), (0.3, 0.1, 3000, 3), (50.0, 0.55, 4, 4)],
)
def test_the_budget_bounds_the_queue(
    budget_eur: float, price_per_label_eur: float, max_labels: int, expected: int,
    chain: Chain, manifest: pd.DataFrame, tmp_path: Path,
) -> None:  # fmt: skip
    config = AcquireConfig(budget_eur=budget_eur, price_per_label_eur=price_per_label_eur, max_labels=max_labels)
    summary = acquire(config, **chain.inputs("catalog", "embeddings", "triage"), output=tmp_path / "queue")
    assert summary.labels == expected
    assert_allowed(read_table(tmp_path / "queue", "queue.parquet"), manifest, config)


def test_more_money_than_images_buys_one_image_of_each_group(
    chain: Chain, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    config = AcquireConfig(budget_eur=1e6)
    summary = acquire(config, **chain.inputs("catalog", "embeddings", "triage"), output=tmp_path / "queue")
    pushed_out = read_table(chain["triage"], "pushed_out.parquet")["slice_id"]
    pool = manifest[(manifest["split"] == "train") & manifest["label"].isna() & ~manifest.index.isin(pushed_out)]
    facts = read_json(tmp_path / "queue" / "queue.json")
    assert summary.labels + facts["collapsed"] == pool["group_id"].nunique(), "but for those nearly the same as another"
    assert summary.labels > facts["collapsed"]
    assert_allowed(read_table(tmp_path / "queue", "queue.parquet"), manifest, config)


def test_what_was_bought_is_learnt_from_and_not_queued_again(
    chain: Chain, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    config, bought = PLANS["queue"][1], read_table(chain["labels"], "labels.parquet")
    before = read_json(chain["queue"] / "queue.json")
    summary = acquire(config, **chain.inputs("catalog", "embeddings", "triage", "labels"), output=tmp_path / "queue")
    after, queue = read_json(tmp_path / "queue" / "queue.json"), read_table(tmp_path / "queue", "queue.parquet")
    assert not set(queue["slice_id"]) & set(bought["slice_id"])
    assert summary.pool == before["pool"] - len(bought)
    assert after["head"]["labelled"] == before["head"]["labelled"] + len(bought)
    assert_allowed(queue, manifest, config)


def test_more_labels_than_were_queued_before_leave_the_rest_of_the_pool(chain: Chain, tmp_path: Path) -> None:
    """With every hidden label but one bought, that one is all that can be queued."""
    hidden = read_table(chain["catalog"], "hidden_labels.parquet")
    known = read_table(chain["catalog"], "manifest").set_index("slice_id")
    pool = hidden[hidden["slice_id"].map(known["split"]) == "train"]
    labels = copy_of_labels(chain, tmp_path, pool.iloc[1:])
    acquire(
        AcquireConfig(), **chain.inputs("catalog", "embeddings", "triage"), labels=labels, output=tmp_path / "queue"
    )
    assert read_table(tmp_path / "queue", "queue.parquet")["slice_id"].tolist() == [pool["slice_id"].iloc[0]]


@pytest.mark.parametrize("step", ["acquire", "pseudo_label"])
def test_a_bought_label_of_an_unknown_class_is_refused_with_the_known_ones(
    step: str, chain: Chain, tmp_path: Path
) -> None:
    bought = read_table(chain["labels"], "labels.parquet").assign(label="leison")[["slice_id", "label"]]
    labels = copy_of_labels(chain, tmp_path, bought)
    config = PLANS["queue" if step == "acquire" else "pseudo_labels"][1]
    with pytest.raises(ArtifactError, match="no class 'leison' in the catalog, which has lesion, normal;"):
        step_named(step)(
            config, **chain.inputs("catalog", "embeddings", "triage"), labels=labels, output=tmp_path / "made"
        )


def copy_of_labels(chain: Chain, folder: Path, answers: pd.DataFrame) -> Path:
    """Artifact of the labels with other answers in it."""
    shutil.copytree(chain["labels"], folder / "labels")
    write_table(folder / "labels", "labels.parquet", answers)
    return folder / "labels"


@pytest.mark.parametrize("price", [0.001, 0.1, 0.55])
def test_prices_below_a_cent_are_kept_and_add_up_as_on_paper(price: float, chain: Chain, tmp_path: Path) -> None:
    config = AcquireConfig(budget_eur=3 * price, price_per_label_eur=price)
    queued = acquire(config, **chain.inputs("catalog", "embeddings", "triage"), output=tmp_path / "queue")
    answered = oracle(OracleConfig(), **chain.inputs("catalog"), queue=tmp_path / "queue", output=tmp_path / "labels")
    assert queued.labels == answered.answered
    assert queued.price_eur == answered.price_eur == float(queued.labels * Fraction(str(price)))


def test_the_oracle_answers_the_queue_with_the_hidden_truth_in_its_order(chain: Chain) -> None:
    queue, labels = read_table(chain["queue"], "queue.parquet"), read_table(chain["labels"], "labels.parquet")
    hidden = read_table(chain["catalog"], "hidden_labels.parquet").set_index("slice_id")["label"]
    assert labels["slice_id"].tolist() == queue["slice_id"].tolist()
    assert labels["label"].tolist() == hidden.loc[queue["slice_id"]].tolist()
    assert chain.summary("labels").price_eur == chain.summary("queue").price_eur


def test_a_set_without_hidden_labels_leaves_its_queue_open(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import oracle as module

    read = module.read_table
    empty = lambda folder, name: read(folder, name).head(0 if name == "hidden_labels.parquet" else None)  # noqa: E731
    monkeypatch.setattr(module, "read_table", empty)
    summary = oracle(OracleConfig(), **chain.inputs("catalog", "queue"), output=tmp_path / "labels")
    assert (summary.answered, summary.queued, summary.price_eur) == (0, 9, 0.0)
    assert "waits for clinicians" in read_json(tmp_path / "labels" / "labels.json")["source"]
