"""Pseudo-label: what the machine would call each unlabelled image, which names may count, and what else they teach."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.splits import assert_learnt_from_train, proven_manifest
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.calibration.scaling import probabilities_of
from scanloop.config import PseudoLabelConfig
from scanloop.embedding.cache import Embeddings, read_embeddings
from scanloop.learning.dataset import (
    AUDIT,
    LEAST_GROUPS_TRIED,
    Known,
    Pool,
    answers,
    known_rows,
    pool_rows,
    require_classes,
)
from scanloop.learning.heads import TunedHead
from scanloop.learning.promotion import Promotion
from scanloop.learning.teaching import Teaching, teach
from scanloop.point_in_time import newest
from scanloop.provenance import digest


@dataclass(frozen=True)
class PseudoLabelSummary:
    """The pool, how it teaches, those that pass the rule, those promoted, the certificate's and the gate's word."""

    pool: int
    method: str
    soft_labelled: int
    candidates: int
    promoted: int
    certificate: str
    gate_passed: bool
    reason: str


@step("pseudo_labels")
def pseudo_label(
    config: PseudoLabelConfig, *, catalog: Path, embeddings: Path, triage: Path, labels: Path, output: Path
) -> PseudoLabelSummary:
    """What the pool teaches: soft labels by the method that out-of-fold evidence picks, and certified promotions.

    The rule for a promotion: calibrated confidence, the nearest labelled neighbours' majority, the nearest class mean,
    and no farther from the labelled images than these are from each other. Answers to images drawn at random (the
    audit) then certify a threshold of confidence, or nothing is promoted; the head behind the rule has not learnt from
    them. The gate tries supervised against semi-supervised on the validation part, or by repeated group
    cross-validation where there is none, and looks at lower bounds only: without both bounds nothing is promoted,
    without that of the difference no soft label is learnt from either. Without a test split, these are the labelled
    images on which `evaluate` and `promote` compare the arms again: their word is no second proof. One row is written
    for every uri of the archive.

    Args:
        config: Method, rule, certificate and gate.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`: the images that it pushed out are scored and have no part in anything else.
        labels: Labels bought since.
        output: Directory for the pseudo-labels.

    Raises:
        TooFewLabelsError: A class has fewer than three labelled groups, the audit not counted.
        LeakageError: A group crosses the splits, or the manifest and the lists of groups disagree.
    """
    manifest, vectors = proven_manifest(catalog), read_embeddings(embeddings)
    facts = read_json(catalog / "catalog.json")
    classes = facts["classes"]
    pushed_out = read_table(triage, "pushed_out.parquet")
    bought = answers(labels, pushed_out)
    known = known_rows(manifest, bought, classes, vectors, "train")
    audited = np.isin(known.slice_ids, bought.loc[bought["purpose"] == AUDIT, "slice_id"]) & ~known.drawn
    require_classes(known.take(~audited), classes, LEAST_GROUPS_TRIED)
    pool = pool_rows(manifest, known, vectors, pushed_out)
    assert_learnt_from_train(manifest, [*known.slice_ids, *pool.slice_ids], "pseudo_label")
    found = teach(known, audited, pool, known_rows(manifest, None, classes, vectors, "validation"), config)
    frame = _pool_frame(pool, found, classes, facts["positive_class"], config.wave)
    others = _others(manifest, known.take(audited), pushed_out)
    rest = _other_frame(others, known.take(~audited), found.tuned, vectors, classes, facts["positive_class"])
    everything = pd.concat([frame, rest], ignore_index=True)
    table = read_table(catalog, "sources.parquet", ["slice_id", "uri"]).merge(everything, on="slice_id", how="inner")
    write_table(output, "pseudo_labels.parquet", table)
    counts: dict[str, Any] = {
        "labels_as_of": newest(read_table(labels, "labels.parquet", ["as_of"])),
        "labelled": int((~audited).sum()),
        "audited": int(audited.sum()),
        "pool": len(pool.slice_ids),
        "pushed_out": len(pushed_out),
        "soft_labelled": int((found.targets.weights > 0).sum()),
        "candidates": int(found.proposal.accepted.sum()),
        "promoted": int(found.promoted.sum()),
    }
    write_json(output / "certificate.json", counts | _certificate(found, config, facts))
    return PseudoLabelSummary(
        counts["pool"],
        found.recipe.method,
        counts["soft_labelled"],
        counts["candidates"],
        counts["promoted"],
        found.promotion.status,
        found.verdict.passed,
        found.verdict.reason,
    )


def _certificate(found: Teaching, config: PseudoLabelConfig, facts: dict[str, Any]) -> dict[str, Any]:
    head = found.tuned.head
    return {
        "wave": config.wave,
        "certificate": _promotion(found.promotion, facts["classes"]),
        "gate": found.verdict,
        "choice": found.choice,
        "recipe": {"method": found.recipe.method, "thresholds": _by_class(found.recipe.thresholds, facts["classes"])},
        "rule": config.model_dump(mode="json"),
        "reasons": dict(Counter(found.reasons)),
        "head": {
            "c": found.tuned.c,
            "temperature": found.tuned.temperature,
            "columns": found.tuned.width,
            "digest": digest([head.weights.tolist(), head.bias.tolist(), found.tuned.temperature]),
        },
        "data_digest": facts["data_digest"],
    }


def _promotion(promotion: Promotion, classes: list[str]) -> dict[str, Any]:
    """The certificate with names for classes; a class without a threshold has none."""
    claims = [
        asdict(claim) | {"scope": "all classes" if claim.scope < 0 else classes[claim.scope]}
        for claim in promotion.certificate.claims
    ]
    return asdict(promotion) | {
        "thresholds": _by_class(promotion.thresholds, classes),
        "certificate": asdict(promotion.certificate) | {"claims": claims},
    }


def _by_class(thresholds: tuple[float, ...] | None, classes: list[str]) -> dict[str, float] | None:
    """Least confidence by class; a class of which nothing is promoted is left out."""
    if thresholds is None:
        return None
    return {name: least for name, least in zip(classes, thresholds, strict=True) if np.isfinite(least)}


def _pool_frame(pool: Pool, found: Teaching, classes: list[str], positive: str, wave: int) -> pd.DataFrame:
    names, proposal = np.array(classes, dtype=object), found.proposal
    weight = np.full(len(pool.slice_ids), np.nan)
    weight[found.drawn] = found.targets.weights
    soft = np.full(len(pool.slice_ids), None, dtype=object)
    for row, target in zip(found.drawn, found.targets.probabilities.tolist(), strict=True):
        soft[row] = target
    return pd.DataFrame({
        "slice_id": pool.slice_ids,
        "probability": proposal.probabilities[:, classes.index(positive)],
        "confidence": proposal.confidence,
        "label": names[proposal.labels],
        "knn_label": names[proposal.neighbour_labels],
        "knn_share": proposal.neighbour_shares,
        "anomaly": proposal.anomaly,
        "promoted": found.promoted,
        "reason": found.reasons,
        "wave": wave,
        "soft": soft,
        "weight": weight,
    })  # fmt: skip


def _others(manifest: pd.DataFrame, audit: Known, pushed_out: pd.DataFrame) -> dict[str, str]:
    """Why each slice that is neither learnt from by the rule's head nor in the pool is not, by id."""
    held = manifest.loc[manifest["split"] != "train", "slice_id"]
    pushed = zip(pushed_out["slice_id"], "pushed out: " + pushed_out["reason"].astype(str), strict=True)
    return dict.fromkeys(held, "held out with its group") | dict.fromkeys(audit.slice_ids, "audited") | dict(pushed)


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
