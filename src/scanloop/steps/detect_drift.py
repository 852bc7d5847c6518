"""The step `detect_drift`: whether today's confidence looks like that of the hold-out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from scanloop.artifacts import read_table, write_bytes, write_json
from scanloop.build import step
from scanloop.config import DetectDriftConfig
from scanloop.drift.evidently_report import EMPTY_PAGE, compare, with_verdict
from scanloop.drift.profile import Profile, predicted_positive, profile_of
from scanloop.drift.scores import chance_score
from scanloop.drift.verdict import Verdict, judge, prevalence_changed, prevalence_words, too_few
from scanloop.errors import ArtifactError
from scanloop.types import Float

HOLD_OUT = ("test", "cross_validation")
POOL = ("pool",)


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


@step("drift")
def detect_drift(
    config: DetectDriftConfig, *, evaluation: Path, current: Path | None = None, output: Path
) -> DriftSummary:
    """Compare the confidence of the hold-out with that of the pool; write `drift.json` and Evidently's `drift.html`.

    Each slice counts once, however many copies of it there are.

    Args:
        config: Method and threshold.
        evaluation: Its predictions of the hold-out are the reference.
        current: A later evaluation, whose predictions of the pool are compared; the same one when not given.
        output: Directory to fill.

    Raises:
        ArtifactError: A table is missing, or has no probabilities.
    """
    predictions = read_table(evaluation, "predictions.parquet")
    watched = predictions if current is None else read_table(current, "predictions.parquet")
    reference, now = _sample(predictions, HOLD_OUT), _sample(watched, POOL)
    reason = too_few(reference.profile, now.profile)
    score, chance = None, None
    if reason is None:
        report = compare(reference.confidence, now.confidence, config.method, config.threshold)
        page, score = report.page, report.score
        if config.method != "ks":
            chance = chance_score(config.method, reference.confidence, now.confidence, config.seed)
        verdict = judge(config.method, score, config.threshold, chance)
    else:
        page, verdict = EMPTY_PAGE, Verdict(None, reason)
    before, after = reference.profile.prevalence, now.profile.prevalence
    summary = DriftSummary(
        method=config.method,
        score=score,
        threshold=config.threshold,
        chance_score=chance,
        drifted=verdict.drifted,
        n_reference=reference.profile.n,
        n_current=now.profile.n,
        prevalence_changed=prevalence_changed(before, after),
        verdict=f"{verdict.words} {prevalence_words(before, after)}".strip(),
    )
    profiles = {"reference": reference.profile, "current": now.profile}
    write_json(output / "drift.json", vars(summary) | profiles | {"reason": reason})
    write_bytes(output / "drift.html", with_verdict(page, summary.verdict).encode())
    return summary


def _sample(predictions: pd.DataFrame, splits: tuple[str, ...]) -> _Sample:
    """Each slice of these splits that has a confidence, once."""
    rows = predictions[predictions["split"].isin(splits) & predictions["confidence"].notna()]
    rows = rows.drop_duplicates("slice_id")
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    return _Sample(confidence, profile_of(confidence, _positive(rows)))


def _positive(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    if rows[["probability", "probabilities"]].isna().to_numpy().any():
        raise ArtifactError("predictions.parquet has rows without probabilities; run evaluate again")
    if rows.empty:
        return np.zeros(0, dtype=np.bool_)
    return predicted_positive(rows["probability"].to_numpy(dtype=np.float64), np.vstack(rows["probabilities"].tolist()))
