"""Pseudo-label: what the machine would call each unlabelled image, and which of these names may count."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.archive.splits import assert_learnt_from_train, proven_manifest
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.calibration.scaling import probabilities_of
from scanloop.config import PseudoLabelConfig
from scanloop.embedding.cache import Embeddings, read_embeddings
from scanloop.learning.dataset import LEAST_GROUPS_TRIED, Known, Pool, answers, known_rows, pool_rows, require_classes
from scanloop.learning.gate import Verdict, judge
from scanloop.learning.heads import TunedHead, tune_head
from scanloop.learning.neighbours import anomaly
from scanloop.learning.pseudo_labels import Proposal, propose, trial_by_cross_validation, trial_on_validation


@dataclass(frozen=True)
class PseudoLabelSummary:
    """Pool images, those that pass the rule, those promoted, and the gate's word."""

    pool: int
    candidates: int
    promoted: int
    gate_passed: bool
    reason: str


@step("pseudo_labels")
def pseudo_label(
    config: PseudoLabelConfig, *, catalog: Path, embeddings: Path, triage: Path, labels: Path, output: Path
) -> PseudoLabelSummary:
    """Pseudo-labels of the pool, promoted by the rule where the hold-out gate lets the wave through.

    The rule: calibrated confidence of at least `min_confidence`, and the nearest labelled neighbours' majority agrees.
    The gate tries supervised against semi-supervised on the validation part, or by repeated group cross-validation
    where there is none, and looks at lower bounds only. Without a test split, these are the labelled images on which
    `evaluate` and `promote` compare the arms again: their word is no second proof. One row is written for every uri
    of the archive.

    Args:
        config: Thresholds of the rule and of the gate.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`: the images that it pushed out are scored and have no part in anything else.
        labels: Labels bought since.
        output: Directory for the pseudo-labels.

    Raises:
        TooFewLabelsError: A class has fewer than three labelled groups.
        LeakageError: A group crosses the splits, or the manifest and the lists of groups disagree.
    """
    manifest, vectors = proven_manifest(catalog), read_embeddings(embeddings)
    facts = read_json(catalog / "catalog.json")
    classes = facts["classes"]
    pushed_out = read_table(triage, "pushed_out.parquet")
    known = known_rows(manifest, answers(labels, pushed_out), classes, vectors, "train")
    require_classes(known, classes, LEAST_GROUPS_TRIED)
    pool = pool_rows(manifest, known, vectors, pushed_out)
    assert_learnt_from_train(manifest, [*known.slice_ids, *pool.slice_ids], "pseudo_label")
    tuned = tune_head(known, len(classes), config.cross_validation.folds, config.seed)
    proposal = propose(tuned, known, pool, len(classes), config)
    verdict = _try(known, pool, known_rows(manifest, None, classes, vectors, "validation"), len(classes), config)
    reasons = _reasons(proposal, verdict, config)
    promoted = proposal.accepted & verdict.passed
    frame = _pool_frame(known, pool, proposal, classes, facts["positive_class"])
    frame = frame.assign(promoted=promoted, reason=reasons, wave=config.wave)
    others = _others(manifest, pushed_out)
    rest = _other_frame(others, known, tuned, vectors, classes, facts["positive_class"])
    everything = pd.concat([frame, rest], ignore_index=True)
    table = read_table(catalog, "sources.parquet", ["slice_id", "uri"]).merge(everything, on="slice_id", how="inner")
    write_table(output, "pseudo_labels.parquet", table)
    candidates = int(proposal.accepted.sum())
    write_json(output / "certificate.json", {
        "gate": verdict,
        "rule": config.model_dump(mode="json"),
        "head": {"labelled": len(known.labels), "c": tuned.c, "temperature": tuned.temperature},
        "pool": len(pool.slice_ids),
        "pushed_out": len(pushed_out),
        "candidates": candidates,
        "promoted": int(promoted.sum()),
        "reasons": dict(Counter(reasons)),
        "wave": config.wave,
        "data_digest": facts["data_digest"],
    })  # fmt: skip
    return PseudoLabelSummary(len(pool.slice_ids), candidates, int(promoted.sum()), verdict.passed, verdict.reason)


def _try(known: Known, pool: Pool, validation: Known, classes: int, config: PseudoLabelConfig) -> Verdict:
    if len(np.unique(validation.labels)) == classes:
        return judge(trial_on_validation(known, pool, validation, classes, config), config)
    return judge(trial_by_cross_validation(known, pool, classes, config), config)


def _reasons(proposal: Proposal, verdict: Verdict, config: PseudoLabelConfig) -> list[str]:
    """Why each pool image is promoted or not; the first test that fails is named."""
    unsure = proposal.probabilities.max(axis=1) < config.min_confidence
    accepted = "promoted" if verdict.passed else "refused by the hold-out gate"
    chosen = np.where(proposal.accepted, accepted, np.where(unsure, "low confidence", "neighbours disagree"))
    return [str(reason) for reason in chosen]


def _pool_frame(known: Known, pool: Pool, proposal: Proposal, classes: list[str], positive: str) -> pd.DataFrame:
    names = np.array(classes, dtype=object)
    return pd.DataFrame({
        "slice_id": pool.slice_ids,
        "probability": proposal.probabilities[:, classes.index(positive)],
        "confidence": proposal.probabilities.max(axis=1),
        "label": names[proposal.labels],
        "knn_label": names[proposal.neighbour_labels],
        "knn_share": proposal.neighbour_shares,
        "anomaly": anomaly(known.vectors, pool.vectors),
    })  # fmt: skip


def _others(manifest: pd.DataFrame, pushed_out: pd.DataFrame) -> dict[str, str]:
    """Why each slice that is neither learnt from nor in the pool is not, by id."""
    held = manifest.loc[manifest["split"] != "train", "slice_id"]
    pushed = zip(pushed_out["slice_id"], "pushed out: " + pushed_out["reason"].astype(str), strict=True)
    return dict.fromkeys(held, "held out with its group") | dict(pushed)


def _other_frame(
    others: dict[str, str], known: Known, tuned: TunedHead, vectors: Embeddings, classes: list[str], positive: str
) -> pd.DataFrame:
    """Rows that are not in the pool: labelled ones, scored out of fold, and the others, with their reasons."""
    logits = np.concatenate([tuned.out_of_fold, tuned.head.logits(vectors.of(list(others)))])
    probabilities = probabilities_of(logits, tuned.temperature)
    reason = ["labelled"] * len(known.slice_ids) + list(others.values())
    return pd.DataFrame({
        "slice_id": [*known.slice_ids, *others],
        "probability": probabilities[:, classes.index(positive)],
        "confidence": probabilities.max(axis=1),
        "label": np.array(classes, dtype=object)[probabilities.argmax(axis=1)],
        "promoted": False,
        "reason": reason,
    })  # fmt: skip
