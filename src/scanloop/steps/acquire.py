"""Acquire: the queue for the clinicians, the images whose labels are worth their price."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.acquisition.audit import draw_audit
from scanloop.acquisition.policy import Candidates, Selection, affordable, select
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.config import AcquireConfig
from scanloop.embedding.cache import read_embeddings
from scanloop.learning.dataset import AUDIT, TRAIN, Pool, answers, known_rows, pool_rows, require_classes
from scanloop.learning.heads import tune_head
from scanloop.types import Labels

HEAD_FOLDS = 5


@dataclass(frozen=True)
class AcquireSummary:
    """How many labels are asked for, how many of them for the audit, at what price together, under which budget."""

    labels: int
    audit: int
    price_eur: float
    budget_eur: float
    pool: int


@step("queue")
def acquire(
    config: AcquireConfig, *, catalog: Path, embeddings: Path, triage: Path, labels: Path | None = None, output: Path
) -> AcquireSummary:
    """Queue of pool images, most wanted first, that costs no more than the budget.

    A small head is trained on the labels at hand; no champion is needed. Among the images that it is least sure of,
    those are taken that differ most from each other and from what is labelled, one a group. The audit goes first:
    images drawn at random from the whole pool, one a group, as many as are missing from the number that is configured.

    Args:
        config: Budget, price and how many candidates compete for each label.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`: the images that it pushed out are not queued.
        labels: Labels bought since: they are learnt from, and their images are not queued again.
        output: Directory for the queue.

    Raises:
        TooFewLabelsError: A class has fewer than two labelled groups.
        LeakageError: A group crosses the splits, or the manifest and the lists of groups disagree.
        ArtifactError: A bought label is none of the catalog's classes.
    """
    manifest, vectors = proven_manifest(catalog), read_embeddings(embeddings)
    classes = read_json(catalog / "catalog.json")["classes"]
    pushed_out = read_table(triage, "pushed_out.parquet")
    bought = None if labels is None else answers(labels, pushed_out)
    known = known_rows(manifest, bought, classes, vectors, "train")
    require_classes(known, classes)
    pool = pool_rows(manifest, known, vectors, pushed_out)
    count = min(affordable(config.budget_eur, config.price_per_label_eur, config.max_labels), len(pool.slice_ids))
    tuned = tune_head(known, len(classes), HEAD_FOLDS, config.seed)
    audited = 0 if bought is None else int((bought["purpose"] == AUDIT).sum())
    audit = draw_audit(pool.groups, min(count, max(0, config.audit - audited)), config.seed)
    left = np.flatnonzero(~np.isin(pool.groups, pool.groups[audit]))
    candidates = Candidates(tuned.probabilities(pool.vectors[left]), pool.vectors[left], pool.groups[left])
    chosen = select(candidates, known.vectors, count - len(audit), config.candidates_per_label)
    frame = _queue(pool, audit, left, chosen).assign(price=config.price_per_label_eur)
    write_table(output, "queue.parquet", frame)
    price = float(len(frame) * Decimal(str(config.price_per_label_eur)))
    write_json(output / "queue.json", {
        "labels": len(frame),
        "audit": len(audit),
        "price_eur": price,
        "price_per_label_eur": config.price_per_label_eur,
        "budget_eur": config.budget_eur,
        "pool": len(pool.slice_ids),
        "head": {"labelled": len(known.labels), "c": tuned.c, "temperature": tuned.temperature},
        "mean_uncertainty": float(chosen.uncertainty.mean()) if len(chosen.rows) else None,
    })  # fmt: skip
    return AcquireSummary(len(frame), len(audit), price, config.budget_eur, len(pool.slice_ids))


def _queue(pool: Pool, audit: Labels, left: Labels, chosen: Selection) -> pd.DataFrame:
    """The audit's images, then those that were chosen."""
    drawn = pd.DataFrame({
        "slice_id": pool.slice_ids[audit],
        "reason": "drawn at random, to audit what the machine says of the pool",
        "purpose": AUDIT,
    })  # fmt: skip
    wanted = pd.DataFrame({
        "slice_id": pool.slice_ids[left[chosen.rows]],
        "uncertainty": chosen.uncertainty,
        "diversity": chosen.diversity,
        "purpose": TRAIN,
    })  # fmt: skip
    wanted["reason"] = [
        f"uncertainty {unsure:.2f} of 1, distance {far:.2f} to the nearest image wanted more or labelled"
        for unsure, far in zip(chosen.uncertainty, chosen.diversity, strict=True)
    ]
    frame = pd.concat([drawn, wanted], ignore_index=True)
    return frame.assign(rank=np.arange(1, len(frame) + 1))
