"""The step `detect_drift`: whether today's confidence looks like that of the hold-out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.artifacts import read_json, read_table, write_bytes, write_json
from scanloop.build import step
from scanloop.config import DetectDriftConfig
from scanloop.drift.evidently_report import EMPTY_PAGE, compare, with_verdict
from scanloop.drift.profile import Profile, profile_of
from scanloop.drift.scores import permutation_test
from scanloop.drift.served import measured_confidences, served_confidences
from scanloop.drift.verdict import (
    THRESHOLDS,
    Verdict,
    basis_words,
    judge,
    prevalence_changed,
    prevalence_words,
    served_basis,
    too_few,
)
from scanloop.errors import ConfigError
from scanloop.provenance import Source
from scanloop.types import Float


@dataclass(frozen=True)
class DriftSummary:
    """What the comparison found.

    Attributes:
        method: How the two samples were compared.
        score: Distance, or p-value for "ks"; None with too few slices.
        threshold: Drift at or above it; at or below it for "ks".
        chance_score: Score that chance exceeds in one of twenty cases at these sizes; None for "ks".
        drifted: None with too few slices.
        n_reference: Hold-out slices.
        n_current: Current slices.
        prevalence_changed: Whether the share predicted positive changed beyond its intervals; None without slices.
        verdict: The judgement in words.
    """

    method: str
    score: float | None
    threshold: float
    chance_score: float | None
    drifted: bool | None
    n_reference: int
    n_current: int
    prevalence_changed: bool | None
    verdict: str


@dataclass(frozen=True)
class _Sample:
    """Confidences, (n,), and their profile."""

    confidence: Float
    profile: Profile


def _sources(config: DetectDriftConfig) -> list[Source]:
    return [] if config.samples is None else [Source(config.samples)]


@step("drift", _sources)
def detect_drift(
    config: DetectDriftConfig, *, evaluation: Path, current: Path | None = None, output: Path
) -> DriftSummary:
    """Compare the confidence on the hold-out with that on the pool; write `drift.json` and Evidently's `drift.html`.

    Both are those of the head of `pseudo_label`, from `confidence.parquet` of `evaluate`: it learnt from no pool slice,
    so that it cannot be surer of the pool for having seen it. Without a test split the reference is one round of its
    calibrated out-of-fold probabilities: one head's word a slice, like those on the pool. `basis` in `drift.json` says
    so in words. Each slice counts once, however many copies of it there are.

    Where the config names samples of what was served, these are compared with what the deployed model said of its
    hold-out, in `predictions.parquet`: one model on both sides, and images that came after it.

    Args:
        config: Method and threshold; samples of what was served.
        evaluation: Its confidence on the hold-out is the reference.
        current: A later evaluation, whose confidence on the pool is compared; the same one when not given. A head that
            changed much in between, with many new labels or another encoder, looks like drift, too.
        output: Directory to fill.

    Raises:
        ArtifactError: A table or the samples are missing.
        ConfigError: There are samples and a later evaluation: one of them is compared.
    """
    if config.samples is not None and current is not None:
        raise ConfigError("detect_drift.samples: compared are samples or a later evaluation, not both")
    threshold = config.threshold or THRESHOLDS[config.method]
    metrics = read_json(evaluation / "metrics.json")
    holdout = str(metrics["holdout"]["kind"])
    if config.samples is not None:
        reference, now, basis = *_served(evaluation, holdout, Path(config.samples)), served_basis(holdout)
    else:
        reference, now = _sample(evaluation, "reference"), _sample(current or evaluation, "pool")
        basis = basis_words(holdout, metrics["deployed_arm"])
    reason = too_few(reference.profile, now.profile)
    score, chance = None, None
    if reason is None:
        report = compare(reference.confidence, now.confidence, config.method, threshold)
        page, score = report.page, report.score
        if config.method != "ks":  # a p-value speaks of chance itself
            tested = permutation_test(config.method, reference.confidence, now.confidence, config.seed)
            score, chance = tested.score, tested.chance
        verdict = judge(config.method, score, threshold, chance)
    else:
        page, verdict = EMPTY_PAGE, Verdict(None, reason)
    before, after = reference.profile.prevalence, now.profile.prevalence
    summary = DriftSummary(
        method=config.method,
        score=score,
        threshold=threshold,
        chance_score=chance,
        drifted=verdict.drifted,
        n_reference=reference.profile.n,
        n_current=now.profile.n,
        prevalence_changed=prevalence_changed(before, after),
        verdict=f"{verdict.words} {prevalence_words(before, after)}".strip(),
    )
    facts = {
        "reference": reference.profile,
        "current": now.profile,
        "reason": reason,
        "basis": basis,
    }
    write_json(output / "drift.json", vars(summary) | facts)
    write_bytes(output / "drift.html", with_verdict(page, f"{summary.verdict} {facts['basis']}").encode())
    return summary


def _sample(evaluation: Path, side: str) -> _Sample:
    table = read_table(evaluation, "confidence.parquet")
    rows: pd.DataFrame = table[table["side"] == side]
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    return _Sample(confidence, profile_of(confidence, rows["positive"].to_numpy(dtype=np.bool_)))


def _served(evaluation: Path, holdout: str, samples: Path) -> tuple[_Sample, _Sample]:
    positive_class = str(read_json(evaluation / "curves.json")["positive_class"])
    both = measured_confidences(evaluation, holdout, positive_class), served_confidences(samples)
    reference, now = (_Sample(one.confidence, profile_of(one.confidence, one.positive)) for one in both)
    return reference, now
