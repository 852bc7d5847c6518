"""Pseudo-labels: the rule, what it leaves alone, and a trial in which no held-out group has any part."""

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
from scanloop.learning import pseudo_labels
from scanloop.learning.dataset import Known, Pool, known_rows, pool_rows
from scanloop.learning.heads import fit_head, tune_head
from scanloop.learning.neighbours import neighbour_vote
from scanloop.learning.pseudo_labels import (
    fit_semi_supervised,
    propose,
    trial_by_cross_validation,
    trial_on_validation,
)
from scanloop.steps.pseudo_label import pseudo_label

RULE = PseudoLabelConfig(neighbours=5, cross_validation=PLAN)
NOBODY = RULE.model_copy(update={"min_neighbour_share": 1.0})


@pytest.mark.parametrize("classes", [2, 3])
def test_a_pseudo_label_needs_confidence_and_the_majority_of_the_neighbours(classes: int) -> None:
    known, pool = new_known(classes=classes), new_pool(classes=classes)
    tuned = tune_head(known, classes, 5, 0)
    proposal = propose(tuned, known, pool, classes, RULE)
    votes, shares = neighbour_vote(known.vectors, known.labels, pool.vectors, 5, classes)
    for row, probabilities in enumerate(tuned.probabilities(pool.vectors)):
        label = int(np.argmax(probabilities))
        expected = probabilities[label] >= 0.8 and votes[row] == label and shares[row] > 0.5
        assert (proposal.labels[row], proposal.accepted[row]) == (label, expected)
    assert 0 < proposal.accepted.sum() < len(pool.groups)


def test_permuting_the_pool_permutes_the_proposal() -> None:
    known, pool = new_known(), new_pool()
    tuned, order = tune_head(known, 2, 5, 0), np.random.default_rng(0).permutation(50)
    shuffled = Pool(pool.slice_ids[order], pool.vectors[order], pool.groups[order])
    one, other = (propose(tuned, known, rows, 2, RULE) for rows in (pool, shuffled))
    np.testing.assert_array_equal(other.accepted, one.accepted[order])
    np.testing.assert_allclose(other.probabilities, one.probabilities[order], atol=1e-12)


def test_without_an_accepted_pseudo_label_the_head_is_the_supervised_one() -> None:
    known, pool = new_known(), new_pool()
    tuned = tune_head(known, 2, 5, 0)
    proposal = propose(tuned, known, pool, 2, NOBODY)
    assert not proposal.accepted.any()
    assert fit_semi_supervised(tuned, known, pool, proposal, 0.5) is tuned.head
    for trial in (
        trial_by_cross_validation(known, pool, 2, NOBODY),
        trial_on_validation(known, pool, new_known(seed=9), 2, NOBODY),
    ):
        np.testing.assert_array_equal(trial.semi_supervised, trial.supervised)


def test_given_labels_keep_their_value_and_their_full_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    known, pool = new_known(gap=0.5), new_pool(gap=2.0)
    wrong = replace(known, labels=np.where(np.arange(60) < 6, 1 - known.labels, known.labels))
    tuned = tune_head(wrong, 2, 5, 0)
    proposal = propose(tuned, wrong, pool, 2, RULE)
    seen = []

    def spy(*args: np.ndarray) -> object:
        seen.append(args)
        return fit_head(*args)

    monkeypatch.setattr(pseudo_labels, "fit_head", spy)
    fit_semi_supervised(tuned, wrong, pool, proposal, 0.3)
    ((vectors, labels, _, c, weights),) = seen
    accepted = proposal.accepted
    assert accepted.any()
    np.testing.assert_array_equal(labels[:60], wrong.labels)
    np.testing.assert_array_equal(vectors[:60], wrong.vectors)
    np.testing.assert_array_equal(weights, [1.0] * 60 + [0.3] * accepted.sum())
    np.testing.assert_array_equal(labels[60:], proposal.labels[accepted])
    np.testing.assert_array_equal(vectors[60:], pool.vectors[accepted])
    assert c == tuned.c


def test_no_pool_image_of_a_held_out_group_has_a_part_in_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    known, pool = new_known(n=48), new_pool(shared=24)
    calls: list[tuple[Known, Pool]] = []

    def spy(tuned: object, train: Known, rows: Pool, *rest: object) -> object:
        calls.append((train, rows))
        return propose(tuned, train, rows, *rest)

    monkeypatch.setattr(pseudo_labels, "propose", spy)
    trial_by_cross_validation(known, pool, 2, RULE)
    assert len(calls) == PLAN.folds * PLAN.repeats
    for train, rows in calls:
        held_out = set(known.groups) - set(train.groups)
        assert held_out & set(pool.groups)
        assert not held_out & set(rows.groups)
        assert set(rows.groups) == set(pool.groups) - held_out


def test_a_held_out_label_reaches_no_prediction_of_its_own_group() -> None:
    known = new_known(n=36)
    identity = (known.groups[:, None] == np.unique(known.groups)).astype(np.float16)
    everyone = RULE.model_copy(update={"min_confidence": 0.0})
    twins = Pool(known.slice_ids, identity, known.groups)  # the pool holds a twin of every labelled row
    trial = trial_by_cross_validation(replace(known, vectors=identity), twins, 2, everyone)
    right = (trial.semi_supervised.argmax(axis=2) == known.labels).mean()
    assert right <= 0.5  # by heart it would be 1


def test_bought_rows_are_learnt_from_and_judge_nothing() -> None:
    known, pool = new_known(n=60, bought=20), new_pool()
    trial = trial_by_cross_validation(known, pool, 2, RULE)
    assert trial.supervised.shape == trial.semi_supervised.shape == (PLAN.repeats, 40, 2)
    np.testing.assert_array_equal(trial.labels, known.labels[:40])
    np.testing.assert_array_equal(trial.groups, known.groups[:40])
    without = trial_by_cross_validation(known.take(known.drawn), pool, 2, RULE)
    assert not np.allclose(trial.supervised, without.supervised)


def test_the_validation_part_is_predicted_by_heads_of_the_training_part() -> None:
    known, pool, validation = new_known(), new_pool(), new_known(n=20, seed=8)
    trial = trial_on_validation(known, pool, validation, 2, RULE)
    tuned = tune_head(known, 2, PLAN.folds, RULE.seed)
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


def test_bought_labels_join_the_training_part_and_never_replace_a_given_one_nor_enter_a_hold_out() -> None:
    bought = pd.DataFrame({"slice_id": ["a", "b", "c", "e"], "label": ["y", "y", None, "y"]})
    known = known_rows(manifest(), bought, ["x", "y"], EMBEDDINGS, "train")
    assert known.slice_ids.tolist() == ["a", "b", "d"]
    assert known.labels.tolist() == [0, 1, 1]
    assert known.drawn.tolist() == [True, False, True]
    np.testing.assert_array_equal(known.vectors, [[0, 1], [2, 3], [6, 7]])
    none, c_alone = (pd.DataFrame({"slice_id": ids}, dtype=object) for ids in ([], ["c"]))
    assert pool_rows(manifest(), known, EMBEDDINGS, none).slice_ids.tolist() == ["c"]
    assert pool_rows(manifest(), known, EMBEDDINGS, c_alone).slice_ids.tolist() == []
    assert known_rows(manifest(), bought, ["x", "y"], EMBEDDINGS, "test").labels.tolist() == [0]


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


def test_two_groups_of_a_class_are_too_few_to_be_tried_and_the_error_names_the_class(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import pseudo_label as module

    with pytest.raises(TooFewLabelsError):
        trial_by_cross_validation(new_known(n=8), new_pool(), 2, RULE)
    known = new_known(n=8, d=256)
    monkeypatch.setattr(module, "known_rows", lambda *_: known)
    with pytest.raises(TooFewLabelsError, match=r"class 'lesion' has 2 labelled.*label at least 3"):
        pseudo_label(
            RULE, **chain.inputs("catalog", "embeddings", "triage", "labels"), output=tmp_path / "pseudo_labels"
        )


def test_the_seed_of_the_cross_validation_cuts_the_folds() -> None:
    plans = (PLAN, PLAN.model_copy(update={"seed": PLAN.seed + 1}))
    one, again, other = (
        trial_by_cross_validation(new_known(), new_pool(), 2, RULE.model_copy(update={"cross_validation": plan}))
        for plan in (PLAN, *plans)
    )
    np.testing.assert_array_equal(one.supervised, again.supervised)
    assert not np.array_equal(one.supervised, other.supervised)


@pytest.mark.parametrize("seed", range(6))
def test_three_groups_of_a_class_among_many_of_the_other_can_be_tried(seed: int) -> None:
    known = new_known(n=60)
    labels = np.isin(known.groups, ["g0001", "g0004", "g0009"]).astype(np.int64)
    plan = PLAN.model_copy(update={"seed": seed})
    config = RULE.model_copy(update={"seed": seed, "cross_validation": plan})
    trial = trial_by_cross_validation(replace(known, labels=labels), new_pool(), 2, config)
    assert np.isfinite(trial.semi_supervised).all()
