"""Pseudo-labels: the rule, what it leaves alone, and trials in which no held-out group has any part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain import LENIENT, PLAN, Chain
from learning_data import new_known, new_pool

from scanloop.artifacts import read_json, read_table
from scanloop.config import PseudoLabelConfig
from scanloop.embedding.cache import Embeddings
from scanloop.errors import LeakageError, TooFewLabelsError
from scanloop.learning.dataset import Known, Pool, known_rows, pool_rows
from scanloop.learning.heads import fit_head, tune_head
from scanloop.learning.pseudo_labels import propose
from scanloop.learning.semisupervised import method
from scanloop.learning.semisupervised import recipe as recipe_module
from scanloop.learning.semisupervised.method import fit_on_targets
from scanloop.learning.semisupervised.policy import SUPERVISED
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.learning.trial import trial_by_cross_validation, trial_on_validation
from scanloop.steps.pseudo_label import pseudo_label

RULE = PseudoLabelConfig(neighbours=5, cross_validation=PLAN)
PROMOTING = Recipe(SUPERVISED, (0.8, 0.8), RULE)
NOBODY = Recipe(SUPERVISED, (2.0, 2.0), RULE)


def angular(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances by angle of float64 rows, written out."""
    norms = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return np.asarray(1 - one @ other.T / norms)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_rule_asks_confidence_neighbours_prototypes_and_nothing_strange(classes: int) -> None:
    known, pool = new_known(classes=classes), new_pool(n=200, classes=classes)
    config = RULE.model_copy(update={"max_anomaly": 0.8})
    tuned = tune_head(known, classes, 5, 0)
    proposal = propose(tuned, known, pool, classes, config)
    rows, queries = known.vectors.astype(np.float64), pool.vectors.astype(np.float64)
    among = angular(rows, rows)
    among[known.groups[:, None] == known.groups] = np.inf
    limit = np.quantile(among.min(axis=1), 0.8)
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = np.stack([directions[known.labels == label].mean(axis=0) for label in range(classes)])
    distances = angular(queries, rows)
    for row, probabilities in enumerate(tuned.probabilities(pool.vectors)):
        label = int(np.argmax(probabilities))
        votes = np.bincount(known.labels[np.argsort(distances[row], kind="stable")[:5]], minlength=classes)
        expected = "" if distances[row].min() <= limit else "unlike the labelled images"
        if angular(queries[row : row + 1], means).argmin() != label:
            expected = "nearer to another class's mean"
        if votes.argmax() != label or votes.max() / 5 <= 0.5:
            expected = "neighbours disagree"
        if probabilities[label] < 0.8:
            expected = "low confidence"
        assert (proposal.labels[row], proposal.refusals[row]) == (label, expected)
    assert set(proposal.refusals) >= {"", "low confidence", "neighbours disagree", "unlike the labelled images"}
    np.testing.assert_array_equal(proposal.accepted, proposal.refusals == "")


def test_a_threshold_counts_for_its_class_alone() -> None:
    known, pool = new_known(), new_pool(n=200)
    proposal = propose(tune_head(known, 2, 5, 0), known, pool, 2, RULE)
    above = proposal.above(np.array([0.95, np.inf]))
    np.testing.assert_array_equal(above, proposal.accepted & (proposal.labels == 0) & (proposal.confidence >= 0.95))
    assert 0 < above.sum() < proposal.accepted.sum()


def test_permuting_the_pool_permutes_the_proposal() -> None:
    known, pool = new_known(), new_pool()
    tuned, order = tune_head(known, 2, 5, 0), np.random.default_rng(0).permutation(50)
    one, other = (propose(tuned, known, rows, 2, RULE) for rows in (pool, pool.take(order)))
    np.testing.assert_array_equal(other.refusals, one.refusals[order])
    np.testing.assert_allclose(other.probabilities, one.probabilities[order], atol=1e-12)


def test_without_a_promoted_label_or_a_method_the_head_is_the_supervised_one() -> None:
    known, pool = new_known(), new_pool()
    tuned = tune_head(known, 2, 5, 0)
    for recipe in (NOBODY, Recipe(SUPERVISED, None, RULE)):
        assert fit_on_targets(tuned, known, pool, recipe.targets(tuned, known, pool)) is tuned.head
        for trial in (
            trial_by_cross_validation(known, pool, recipe, PLAN, 0),
            trial_on_validation(known, pool, new_known(n=20, seed=9), recipe, PLAN, 0),
        ):
            np.testing.assert_array_equal(trial.semi_supervised, trial.supervised)


def test_given_labels_keep_their_value_and_their_full_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    known, pool = new_known(gap=0.5), new_pool(gap=2.0)
    wrong = replace(known, labels=np.where(np.arange(60) < 6, 1 - known.labels, known.labels))
    tuned = tune_head(wrong, 2, 5, 0)
    seen = []

    def spy(*args: np.ndarray) -> object:
        seen.append(args)
        return fit_head(*args)

    monkeypatch.setattr(method, "fit_head", spy)
    rule = RULE.model_copy(update={"weight": 0.3})
    targets = Recipe(SUPERVISED, (0.8, 0.8), rule).targets(tuned, wrong, pool)
    fit_on_targets(tuned, wrong, pool, targets)
    ((vectors, labels, _, c, weights),) = seen
    proposal = propose(tuned, wrong, pool, 2, rule)
    order = np.flatnonzero(proposal.accepted)
    order = order[np.argsort(proposal.labels[order], kind="stable")]
    assert len(order)
    np.testing.assert_array_equal(labels[:60], wrong.labels)
    np.testing.assert_array_equal(vectors[:60], wrong.vectors)
    np.testing.assert_array_equal(weights, [1.0] * 60 + [0.3] * len(order))
    np.testing.assert_array_equal(labels[60:], proposal.labels[order])
    np.testing.assert_array_equal(vectors[60:], pool.vectors[order])
    assert c == tuned.c


def test_a_promoted_label_takes_the_place_of_a_soft_one() -> None:
    known, pool = new_known(), new_pool(n=100)
    tuned = tune_head(known, 2, 5, 0)
    soft, both = (Recipe("mixture", least, RULE).targets(tuned, known, pool) for least in (None, (0.9, 0.9)))
    proposal = propose(tuned, known, pool, 2, RULE)
    promoted = proposal.above(np.array([0.9, 0.9]))
    assert 0 < promoted.sum() < 100
    np.testing.assert_array_equal(both.probabilities[promoted], np.eye(2)[proposal.labels[promoted]])
    assert (both.weights[promoted] == RULE.weight).all()
    np.testing.assert_array_equal(both.probabilities[~promoted], soft.probabilities[~promoted])
    np.testing.assert_array_equal(both.weights[~promoted], soft.weights[~promoted])


def test_no_pool_image_of_a_held_out_group_has_a_part_in_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    known, pool = new_known(n=48), new_pool(shared=24)
    calls: list[tuple[Known, Pool]] = []

    def spy(tuned: object, train: Known, rows: Pool, *rest: object) -> object:
        calls.append((train, rows))
        return propose(tuned, train, rows, *rest)

    monkeypatch.setattr(recipe_module, "propose", spy)
    trial_by_cross_validation(known, pool, Recipe("mixture", (0.8, 0.8), RULE), PLAN, 0)
    assert len(calls) == PLAN.folds * PLAN.repeats
    for train, rows in calls:
        held_out = set(known.groups) - set(train.groups)
        assert held_out & set(pool.groups)
        assert not held_out & set(rows.groups)
        assert set(rows.groups) == set(pool.groups) - held_out


def test_a_held_out_label_reaches_no_prediction_of_its_own_group() -> None:
    known = new_known(n=36)
    identity = (known.groups[:, None] == np.unique(known.groups)).astype(np.float16)
    everyone = Recipe("consensus", (0.0, 0.0), RULE.model_copy(update={"min_confidence": 0.0, "max_anomaly": 1.0}))
    twins = Pool(known.slice_ids, identity, known.groups)  # the pool holds a twin of every labelled row
    trial = trial_by_cross_validation(replace(known, vectors=identity), twins, everyone, PLAN, 0)
    right = (trial.semi_supervised.argmax(axis=2) == known.labels).mean()
    assert right <= 0.5  # by heart it would be 1


def test_bought_rows_are_learnt_from_and_judge_nothing() -> None:
    known, pool = new_known(n=60, bought=20), new_pool()
    trial = trial_by_cross_validation(known, pool, PROMOTING, PLAN, 0)
    assert trial.supervised.shape == trial.semi_supervised.shape == (PLAN.repeats, 40, 2)
    np.testing.assert_array_equal(trial.labels, known.labels[:40])
    np.testing.assert_array_equal(trial.groups, known.groups[:40])
    without = trial_by_cross_validation(known.take(known.drawn), pool, PROMOTING, PLAN, 0)
    assert not np.allclose(trial.supervised, without.supervised)


def test_the_validation_part_is_predicted_by_heads_of_the_training_part() -> None:
    known, pool, validation = new_known(), new_pool(), new_known(n=20, seed=8)
    trial = trial_on_validation(known, pool, validation, PROMOTING, PLAN, 5)
    tuned = tune_head(known, 2, PLAN.folds, 5)
    np.testing.assert_array_equal(trial.supervised[0], tuned.probabilities(validation.vectors))
    np.testing.assert_array_equal(trial.labels, validation.labels)
    assert not np.allclose(trial.supervised, trial.semi_supervised)


def manifest() -> pd.DataFrame:
    frame = pd.DataFrame({
        "slice_id": ["a", "b", "c", "d", "e"], "group_id": ["1", "1", "2", "3", "4"], "patient_id": None, "site": None,
        "label": ["x", None, None, "y", "x"], "split": ["train", "train", "train", "train", "test"],
    })  # fmt: skip
    return frame.astype(object)


EMBEDDINGS = Embeddings(list("abcde"), np.arange(10, dtype=np.float16).reshape(5, 2))


def test_bought_labels_join_the_training_part_and_are_learnt_in_place_of_given_ones_that_judge_on() -> None:
    bought = pd.DataFrame({"slice_id": ["a", "b", "c", "e"], "label": ["y", "y", None, "y"]})
    known = known_rows(manifest(), bought, ["x", "y"], EMBEDDINGS, "train")
    assert known.slice_ids.tolist() == ["a", "b", "d"]
    assert known.labels.tolist() == [1, 1, 1]
    assert known.judging.tolist() == [0, 1, 1]
    assert known.take(np.array([0, 2])).judging.tolist() == [0, 1]
    assert known.sources() == ["reread", "bought", "given"]
    assert known.drawn.tolist() == [True, False, True]
    np.testing.assert_array_equal(known.vectors, [[0, 1], [2, 3], [6, 7]])
    none, c_alone = (pd.DataFrame({"slice_id": ids}, dtype=object) for ids in ([], ["c"]))
    assert pool_rows(manifest(), known, EMBEDDINGS, none).slice_ids.tolist() == ["c"]
    assert pool_rows(manifest(), known, EMBEDDINGS, c_alone).slice_ids.tolist() == []
    assert known_rows(manifest(), bought, ["x", "y"], EMBEDDINGS, "test").labels.tolist() == [0]
    unsure = pd.DataFrame({"slice_id": ["a"], "label": [None]}, dtype=object)
    for nothing_new in (unsure, pd.DataFrame({"slice_id": ["a"], "label": ["x"]})):
        same = known_rows(manifest(), nothing_new, ["x", "y"], EMBEDDINGS, "train")
        assert (same.labels.tolist(), same.given, same.sources()) == ([0, 1], None, ["given", "given"])


def test_a_group_across_the_splits_is_refused() -> None:
    leaking = manifest().assign(split=["train", "test", "train", "train", "test"])
    with pytest.raises(LeakageError):
        known_rows(leaking, None, ["x", "y"], EMBEDDINGS, "train")


def test_the_table_has_one_row_for_every_uri_and_promotes_pool_images_only(chain: Chain) -> None:
    table = read_table(chain["pseudo_labels"], "pseudo_labels.parquet")
    sources, rows = read_table(chain["catalog"], "sources.parquet"), read_table(chain["catalog"], "manifest")
    assert sorted(table["uri"]) == sorted(sources["uri"])
    bought = set(read_table(chain["labels"], "labels.parquet")["slice_id"])
    pool = set(rows.loc[rows["label"].isna() & (rows["split"] == "train"), "slice_id"]) - bought
    promoted = table[table["promoted"]]
    assert set(promoted["slice_id"]) <= pool
    assert promoted["slice_id"].nunique() == chain.summary("pseudo_labels").promoted > 0
    assert (promoted["confidence"] >= LENIENT.min_confidence).all()
    assert (promoted["knn_label"] == promoted["label"]).all()
    assert (promoted["knn_share"] > LENIENT.min_neighbour_share).all()
    pushed_out = set(read_table(chain["triage"], "pushed_out.parquet")["slice_id"])
    others = table[~table["slice_id"].isin(pool - pushed_out)]
    assert {reason.split(":")[0] for reason in others["reason"]} - {"pushed out"} == {
        "labelled",
        "held out with its group",
    }
    assert table["probability"].between(0, 1).all()
    np.testing.assert_allclose(
        table["confidence"], np.where(table["label"] == "lesion", table["probability"], 1 - table["probability"])
    )


def test_a_gate_that_refuses_promotes_nothing_and_says_why(chain: Chain, tmp_path: Path) -> None:
    strict = LENIENT.model_copy(update={"min_f1": 1.0})
    inputs = chain.inputs("catalog", "embeddings", "triage", "labels")
    summary = pseudo_label(strict, **inputs, output=tmp_path / "pseudo_labels")
    assert (summary.promoted, summary.gate_passed) == (0, False)
    assert summary.candidates == chain.summary("pseudo_labels").candidates
    table = read_table(tmp_path / "pseudo_labels", "pseudo_labels.parquet")
    assert not table["promoted"].any()
    assert (table["reason"] == "refused by the hold-out gate").sum() >= summary.candidates
    gate = read_json(tmp_path / "pseudo_labels" / "certificate.json")["gate"]
    assert "the lower bound of macro-F1 is" in gate["reason"]
    assert gate["semi_supervised_macro_f1"]["low"] < gate["min_f1"]
    assert gate["harmless"]
    assert summary.soft_labelled > 0  # what does no harm may still teach
    harmful = LENIENT.model_copy(update={"margin": 0.0})
    summary = pseudo_label(harmful, **inputs, output=tmp_path / "harmful")
    assert (summary.method, summary.soft_labelled, summary.promoted) == (SUPERVISED, 0, 0)


def test_two_groups_of_a_class_are_too_few_to_be_tried_and_the_error_names_the_class(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import pseudo_label as module

    with pytest.raises(TooFewLabelsError):
        trial_by_cross_validation(new_known(n=8), new_pool(), PROMOTING, PLAN, 0)
    known = new_known(n=8, d=256)
    monkeypatch.setattr(module, "known_rows", lambda *_: known)
    with pytest.raises(TooFewLabelsError, match=r"class 'lesion' has 2 labelled.*label at least 3"):
        pseudo_label(
            RULE, **chain.inputs("catalog", "embeddings", "triage", "labels"), output=tmp_path / "pseudo_labels"
        )


def test_the_seed_of_the_cross_validation_cuts_the_folds() -> None:
    plans = (PLAN, PLAN.model_copy(update={"seed": PLAN.seed + 1}))
    one, again, other = (
        trial_by_cross_validation(new_known(), new_pool(), PROMOTING, plan, 0) for plan in (PLAN, *plans)
    )
    np.testing.assert_array_equal(one.supervised, again.supervised)
    assert not np.array_equal(one.supervised, other.supervised)


@pytest.mark.parametrize("seed", range(6))
def test_three_groups_of_a_class_among_many_of_the_other_can_be_tried(seed: int) -> None:
    known = new_known(n=60)
    labels = np.isin(known.groups, ["g0001", "g0004", "g0009"]).astype(np.int64)
    plan = PLAN.model_copy(update={"seed": seed})
    trial = trial_by_cross_validation(replace(known, labels=labels), new_pool(), PROMOTING, plan, seed)
    assert np.isfinite(trial.semi_supervised).all()
