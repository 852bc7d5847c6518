"""Drift of the confidence: our scores against Evidently's and SciPy's, and the step on planted changes."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import jensenshannon_stat_test as jensenshannon
from evidently.legacy.calculations.stattests import ks_stat_test, psi_stat_test
from evidently.legacy.calculations.stattests import wasserstein_stat_test as wasserstein
from scipy import stats

from scanloop.artifacts import write_json, write_table
from scanloop.build import read_summary
from scanloop.calibration.scaling import probabilities_of
from scanloop.config import DetectDriftConfig
from scanloop.drift.evidently_report import compare
from scanloop.drift.profile import profile_of, wilson
from scanloop.drift.scores import permutation_test
from scanloop.drift.verdict import THRESHOLDS, judge
from scanloop.errors import ArtifactError
from scanloop.learning.dataset import Known
from scanloop.learning.heads import tune_head
from scanloop.steps.detect_drift import DriftSummary, detect_drift
from scanloop.types import Float

DISTANCES = ("psi", "jensenshannon", "wasserstein")


def distance(method: str, reference: Float, current: Float) -> float:
    return permutation_test(method, reference, current, seed=0, draws=1).score


def samples(name: str) -> tuple[Float, Float]:
    rng = np.random.default_rng(3)
    pairs = {
        "alike": (rng.beta(8, 2, 300), rng.beta(8, 2, 700)),
        "apart": (rng.beta(9, 1, 300), rng.beta(4, 3, 700)),
        "few values": (rng.choice([0.6, 0.8, 1.0], 80), rng.choice([0.6, 0.7, 0.8, 1.0], 90)),
        "all the same": (np.full(30, 0.9), np.full(40, 0.9)),
    }
    return pairs[name]


def confidences(confidence: Float, side: str, positive_share: float = 0.5) -> pd.DataFrame:
    """Rows of one side; `positive_share` of them are predicted positive."""
    positive = np.arange(len(confidence)) < round(positive_share * len(confidence))
    slice_ids = [f"{side}{index}" for index in range(len(confidence))]
    return pd.DataFrame({"slice_id": slice_ids, "side": side, "confidence": confidence, "positive": positive})


def evaluation(path: Path, *tables: pd.DataFrame, holdout: str = "test", arm: str = "supervised") -> Path:
    write_json(path / "artifact.json", {"kind": "evaluation", "key": path.name, "summary": {}, "files": {}})
    write_json(path / "run.json", {"seconds": 1.0, "finished": 0.0})
    write_json(path / "metrics.json", {"holdout": {"kind": holdout}, "deployed_arm": arm})
    write_table(path, "confidence.parquet", pd.concat(tables, ignore_index=True))
    return path


def beta(seed: int, a: float, b: float, n: int) -> Float:
    return 0.5 + np.random.default_rng(seed).beta(a, b, n) / 2


@pytest.mark.parametrize("name", ["alike", "apart", "few values", "all the same"])
@pytest.mark.parametrize("method", DISTANCES)
def test_our_scores_agree_with_evidently(method: str, name: str) -> None:
    reference, current = samples(name)
    assert distance(method, reference, current) == pytest.approx(
        compare(reference, current, method, 0.2).score, rel=1e-9, abs=1e-9
    )


def test_evidently_s_p_value_is_that_of_scipy() -> None:
    reference, current = samples("apart")
    assert compare(reference, current, "ks", 0.05).score == pytest.approx(stats.ks_2samp(reference, current).pvalue)


def test_psi_of_two_coins_is_what_the_formula_says() -> None:
    heads_then, heads_now = 0.5, 0.8
    reference, current = np.repeat([0.0, 1.0], [50, 50]), np.repeat([0.0, 1.0], [20, 80])
    expected = (heads_then - heads_now) * np.log(heads_then / heads_now) + (0.5 - 0.2) * np.log(0.5 / 0.2)
    assert distance("psi", reference, current) == pytest.approx(expected)


def test_the_wasserstein_distance_of_a_shift_is_the_shift() -> None:
    reference = np.random.default_rng(0).normal(size=500)
    assert distance("wasserstein", reference, reference + 0.3) == pytest.approx(0.3 / reference.std())
    assert distance("wasserstein", reference, reference) == 0


@pytest.mark.parametrize("method", DISTANCES)
def test_the_estimate_of_chance_is_that_of_rows_dealt_by_hand(method: str) -> None:
    reference, current = samples("alike")
    together, rng = np.concatenate([reference, current]), np.random.default_rng(9)
    dealt = []
    for _ in range(400):
        order = rng.permutation(together)
        dealt.append(distance(method, order[: len(reference)], order[len(reference) :]))
    found = permutation_test(method, reference, current, seed=1, draws=400).chance
    assert found == pytest.approx(np.quantile(dealt, 0.95), rel=0.2)


def test_chance_alone_is_called_drift_in_about_one_case_of_twenty() -> None:
    called = 0
    for seed in range(200):
        found = permutation_test("psi", beta(seed, 5, 2, 60), beta(1000 + seed, 5, 2, 200), seed)
        called += found.score > found.chance
    assert 2 <= called <= 20  # 10 expected


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (12, 12), (3, 40), (700, 1400)])
def test_the_wilson_interval_is_that_of_scipy(successes: int, n: int) -> None:
    found, expected = wilson(successes, n), stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_profile_tells_quantiles_and_the_share_that_is_confident() -> None:
    profile = profile_of(np.linspace(0.5, 1, 101), np.arange(101) < 25)
    assert (profile.n, profile.quantiles["0.5"]) == (101, 0.75)
    assert profile.mean == pytest.approx(0.75)
    assert profile.confident_share == pytest.approx(41 / 101)
    assert profile.prevalence is not None
    assert profile.prevalence.value == pytest.approx(25 / 101)


def new_slices(seed: int, n: int) -> Known:
    """Vectors of two overlapping classes; the same draw for labelled slices and the pool, so that nothing drifts."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    vectors = (rng.normal(size=(n, 12)) + 0.5 * (2 * labels[:, None] - 1)).astype(np.float16)
    ids = np.array([f"s{row}" for row in range(n)], dtype=object)
    return Known(ids, vectors, labels, ids, np.ones(n, dtype=bool))


def test_a_head_out_of_fold_finds_no_drift_in_a_like_pool_and_without_its_sure_slices_it_would() -> None:
    called, called_without = 0, 0
    for seed in range(10):
        known, pool = new_slices(seed, 150), new_slices(1000 + seed, 400)
        tuned = tune_head(known, 2, 5, seed)
        reference = probabilities_of(tuned.out_of_fold, tuned.temperature).max(axis=1)
        now = tuned.probabilities(pool.vectors).max(axis=1)
        whole, unsure = (permutation_test("psi", reference, sample, seed) for sample in (now, now[now < 0.8]))
        called += bool(judge("psi", whole.score, THRESHOLDS["psi"], whole.chance).drifted)
        called_without += bool(judge("psi", unsure.score, THRESHOLDS["psi"], unsure.chance).drifted)
    assert called <= 1
    assert called_without == 10


@pytest.mark.parametrize(("method", "score", "threshold", "chance", "drifted"), [
    ("psi", 0.5, 0.2, 0.1, True), ("psi", 0.2, 0.2, 0.1, True), ("psi", 0.5, 0.2, 0.6, False),
    ("psi", 0.1, 0.2, 0.05, False), ("ks", 0.01, 0.05, None, True), ("ks", 0.2, 0.05, None, False),
])  # fmt: skip
def test_drift_is_what_passes_the_threshold_and_chance(
    method: str, score: float, threshold: float, chance: float | None, drifted: bool
) -> None:
    assert judge(method, score, threshold, chance).drifted is drifted


def test_without_a_threshold_each_method_takes_its_own_and_ks_that_of_a_p_value() -> None:
    evidently = {test.name: test.default_threshold for test in (ks_stat_test, wasserstein, jensenshannon)}
    assert evidently | {"psi": THRESHOLDS["psi"]} == THRESHOLDS
    assert psi_stat_test.default_threshold < THRESHOLDS["psi"] <= 0.25


@pytest.mark.parametrize("method", ["psi", "ks", "wasserstein", "jensenshannon"])
def test_a_planted_change_is_found_and_its_absence_too(tmp_path: Path, method: str) -> None:
    hold_out = confidences(beta(0, 8, 2, 400), "reference")
    changed = evaluation(tmp_path / "changed", hold_out, confidences(beta(1, 2, 6, 600), "pool"))
    steady = evaluation(tmp_path / "steady", hold_out, confidences(beta(2, 8, 2, 600), "pool"))
    config = DetectDriftConfig(method=method)
    found = detect_drift(config, evaluation=changed, output=tmp_path / "drift")
    assert found.drifted is True
    assert "has drifted" in found.verdict
    assert found.threshold == THRESHOLDS[method]
    assert detect_drift(config, evaluation=steady, output=tmp_path / "no_drift").drifted is False


def test_a_p_value_that_chance_gives_in_one_case_of_seven_is_no_drift(tmp_path: Path) -> None:
    reference, current = beta(4, 8, 2, 200), beta(9, 8, 2, 200)
    assert 0.05 < stats.ks_2samp(reference, current).pvalue < 0.2
    source = evaluation(tmp_path / "evaluation", confidences(reference, "reference"), confidences(current, "pool"))
    assert detect_drift(DetectDriftConfig(method="ks"), evaluation=source, output=tmp_path / "drift").drifted is False
    strict = DetectDriftConfig(method="ks", threshold=0.2)
    assert detect_drift(strict, evaluation=source, output=tmp_path / "strict").drifted is True


@pytest.mark.parametrize(("holdout", "arm", "words", "others"), [
    ("test", "supervised", "on the test split", "out of fold"),
    ("cross_validation", "supervised", "out of fold in one round", "promoted"),
    ("cross_validation", "semi_supervised", "learnt from the promoted slices", "test split"),
])  # fmt: skip
def test_the_json_and_the_page_say_whose_confidence_is_compared_and_on_what(
    tmp_path: Path, holdout: str, arm: str, words: str, others: str
) -> None:
    tables = confidences(beta(0, 8, 2, 60), "reference"), confidences(beta(1, 8, 2, 60), "pool")
    source = evaluation(tmp_path / "evaluation", *tables, holdout=holdout, arm=arm)
    detect_drift(DetectDriftConfig(), evaluation=source, output=tmp_path / "drift")
    basis = json.loads((tmp_path / "drift" / "drift.json").read_text())["basis"]
    assert "the head that proposes pseudo-labels" in basis
    assert words in basis
    assert others not in basis
    assert basis in (tmp_path / "drift" / "drift.html").read_text()


def test_the_page_is_whole_in_itself_and_the_json_says_what_it_says(tmp_path: Path) -> None:
    hold_out = confidences(beta(0, 8, 2, 300), "reference", positive_share=0.5)
    source = evaluation(tmp_path / "evaluation", hold_out, confidences(beta(1, 2, 6, 500), "pool", 0.2))
    summary = detect_drift(DetectDriftConfig(), evaluation=source, output=tmp_path / "drift")
    page = (tmp_path / "drift" / "drift.html").read_text()
    assert f">{summary.verdict} Compared is" in page
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="?https?:', page)
    drift = json.loads((tmp_path / "drift" / "drift.json").read_text())
    assert (drift["n_reference"], drift["n_current"], drift["reason"]) == (300, 500, None)
    assert (drift["method"], drift["threshold"], drift["drifted"]) == ("psi", 0.2, True)
    assert drift["score"] == pytest.approx(compare(beta(0, 8, 2, 300), beta(1, 2, 6, 500), "psi", 0.2).score)
    assert drift["current"]["quantiles"]["0.5"] == pytest.approx(np.median(beta(1, 2, 6, 500)))
    assert drift["current"]["confident_share"] == pytest.approx(np.mean(beta(1, 2, 6, 500) >= 0.8))
    assert drift["current"]["prevalence"]["value"] == pytest.approx(0.2)
    assert drift["prevalence_changed"] is True
    assert "changed: 50% (44% to 56%, n = 300) in the reference, 20%" in drift["verdict"]
    assert DriftSummary(**read_summary(tmp_path / "drift")) == summary


def test_drift_json_is_the_same_byte_for_byte_in_two_runs(tmp_path: Path) -> None:
    tables = confidences(beta(0, 8, 2, 90), "reference"), confidences(beta(1, 7, 2, 500), "pool")
    source = evaluation(tmp_path / "evaluation", *tables)
    for name in ("one", "two"):
        detect_drift(DetectDriftConfig(), evaluation=source, output=tmp_path / name)
    for name in ("drift.json", "artifact.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_too_few_slices_carry_no_verdict_and_no_crash(tmp_path: Path) -> None:
    hold_out = confidences(beta(0, 8, 2, 19), "reference")
    few = evaluation(tmp_path / "few", hold_out, confidences(beta(1, 2, 6, 500), "pool"))
    none = evaluation(tmp_path / "none", hold_out)
    summary = detect_drift(DetectDriftConfig(), evaluation=few, output=tmp_path / "drift")
    assert (summary.drifted, summary.score, summary.n_reference) == (None, None, 19)
    drift = json.loads((tmp_path / "drift" / "drift.json").read_text())
    assert drift["drifted"] is None
    assert "19 in the reference" in drift["reason"]
    assert "19 in the reference" in (tmp_path / "drift" / "drift.html").read_text()
    empty = detect_drift(DetectDriftConfig(), evaluation=none, output=tmp_path / "empty")
    assert (empty.drifted, empty.n_current, empty.prevalence_changed) == (None, 0, None)


def test_a_later_evaluation_takes_the_pool_s_place(tmp_path: Path) -> None:
    hold_out, pool = confidences(beta(0, 8, 2, 300), "reference"), confidences(beta(1, 8, 2, 300), "pool")
    then = evaluation(tmp_path / "then", hold_out, pool)
    now = evaluation(tmp_path / "now", hold_out, confidences(beta(2, 2, 6, 350), "pool"))
    assert detect_drift(DetectDriftConfig(), evaluation=then, output=tmp_path / "a").drifted is False
    later = detect_drift(DetectDriftConfig(), evaluation=then, current=now, output=tmp_path / "b")
    assert (later.drifted, later.n_current) == (True, 350)


def test_a_small_sample_that_passes_the_threshold_by_chance_is_not_called_drift(tmp_path: Path) -> None:
    tables = confidences(beta(0, 5, 2, 25), "reference"), confidences(beta(1, 5, 2, 25), "pool")
    source = evaluation(tmp_path / "evaluation", *tables)
    summary = detect_drift(DetectDriftConfig(), evaluation=source, output=tmp_path / "drift")
    assert summary.score is not None
    assert summary.score > summary.threshold
    assert summary.drifted is False
    assert "chance alone reaches" in summary.verdict


def test_an_evaluation_without_confidences_is_refused(tmp_path: Path) -> None:
    source = evaluation(tmp_path / "evaluation", confidences(beta(0, 8, 2, 50), "reference"))
    (source / "confidence.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"confidence\.parquet is missing; run the step"):
        detect_drift(DetectDriftConfig(), evaluation=source, output=tmp_path / "drift")
