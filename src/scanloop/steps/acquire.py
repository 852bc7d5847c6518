"""Acquire: the queue for the clinicians, the images whose labels are worth their price."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.acquisition.audit import draw_audit
from scanloop.acquisition.policy import Selection, affordable, select
from scanloop.acquisition.situation import Situation, unit_rows
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.config import AcquireConfig
from scanloop.embedding.cache import read_embeddings
from scanloop.learning.control_arm import control_arm
from scanloop.learning.dataset import (
    AUDIT,
    CONTROL,
    TRAIN,
    Known,
    Pool,
    answers,
    known_rows,
    pool_rows,
    require_classes,
)
from scanloop.learning.heads import TunedHead, tune_head
from scanloop.learning.neighbours import nearest_labelled
from scanloop.learning.value import value_of_labels
from scanloop.types import Labels

HEAD_FOLDS = 5
NEIGHBOURS = 5
"""Labelled images that a reader may look at beside the one that is asked for."""

TOO_FEW = {"verdict": "go on", "why": "a class has too few labelled groups for a forecast"}


@dataclass(frozen=True)
class AcquireSummary:
    """How many labels are asked for, how many of them for the audit, at what price together, under which budget.

    `verdict` is "stop" where a euro surely buys too little, and nothing is asked for; "go on" otherwise.
    """

    labels: int
    audit: int
    price_eur: float
    budget_eur: float
    pool: int
    verdict: str


@step("queue")
def acquire(
    config: AcquireConfig, *, catalog: Path, embeddings: Path, triage: Path, labels: Path | None = None, output: Path
) -> AcquireSummary:
    """Queue of pool images, most wanted first, that costs no more than the budget.

    A small head is trained on the labels at hand; no champion is needed. The policy chooses by what it says of the
    pool and by where images lie, one a group and none nearly the same as another; a few are drawn at random beside
    them, so that the gain over random draws is seen. The audit goes first: images drawn at random from the whole pool,
    one a group, as many as are missing from the number that is configured. What the next label is worth is forecast;
    where a euro surely buys less than is asked for, nothing is queued.

    Args:
        config: Policy, budget, price, and how many candidates compete for each label.
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
    value = value_of_labels(known, len(classes), tuned.c, config.price_per_label_eur, count, config.seed)
    worth = TOO_FEW if value is None else value.worth(config.least_f1_per_eur)
    count = 0 if worth["verdict"] == "stop" else count
    audited = 0 if bought is None else int((bought["purpose"] == AUDIT).sum())
    audit = draw_audit(pool.groups, min(count, max(0, config.audit - audited)), config.seed)
    situation = _situation(pool, known, tuned, config)
    near = float(read_json(triage / "triage.json")["pushed_out"]["threshold"]["cosine"])
    chosen = select(situation.without(audit), count - len(audit), config.policy, config.control_share, near)
    frame = _queue(pool, audit, chosen, config.policy).assign(
        price=config.price_per_label_eur, **_evidence(situation, known, classes, np.concatenate([audit, chosen.rows]))
    )
    write_table(output, "queue.parquet", frame)
    price = float(len(frame) * Decimal(str(config.price_per_label_eur)))
    write_json(output / "queue.json", {
        "labels": len(frame),
        "audit": len(audit),
        "control": int(chosen.control.sum()),
        "collapsed": chosen.collapsed,
        "policy": config.policy,
        "price_eur": price,
        "price_per_label_eur": config.price_per_label_eur,
        "budget_eur": config.budget_eur,
        "pool": len(pool.slice_ids),
        "head": {"labelled": len(known.labels), "c": tuned.c, "temperature": tuned.temperature},
        "mean_uncertainty": float(chosen.uncertainty.mean()) if len(chosen.rows) else None,
        "forecast": worth | ({} if value is None else asdict(value)),
        "control_arm": None if bought is None else control_arm(known, bought, len(classes), tuned.c, config.seed),
    })  # fmt: skip
    return AcquireSummary(len(frame), len(audit), price, config.budget_eur, len(pool.slice_ids), worth["verdict"])


def _situation(pool: Pool, known: Known, tuned: TunedHead, config: AcquireConfig) -> Situation:
    return Situation(
        probabilities=tuned.probabilities(pool.vectors),
        vectors=pool.vectors,
        groups=pool.groups,
        free=np.ones(len(pool.groups), dtype=bool),
        labelled=unit_rows(known.vectors, np.arange(len(known.labels))),
        labels=known.labels,
        answer=tuned.probabilities,
        breadth=config.candidates_per_label,
        seed=config.seed,
    )


def _evidence(situation: Situation, known: Known, classes: Sequence[str], rows: Labels) -> dict[str, Any]:
    """Columns for readers: what the head says of each image, and the labelled images that are most like it."""
    nearest = nearest_labelled(situation.labelled, situation.points(rows), NEIGHBOURS)
    return {
        "probabilities": list(situation.probabilities[rows]),
        "neighbours": [known.slice_ids[places].tolist() for places in nearest],
        "neighbour_labels": [[classes[label] for label in known.labels[places]] for places in nearest],
    }


def _queue(pool: Pool, audit: Labels, chosen: Selection, policy: str) -> pd.DataFrame:
    """The audit's images, then those that were chosen, with the controls among them."""
    drawn = pd.DataFrame({
        "slice_id": pool.slice_ids[audit],
        "reason": "drawn at random, to audit what the machine says of the pool",
        "purpose": AUDIT,
    })  # fmt: skip
    wanted = pd.DataFrame({
        "slice_id": pool.slice_ids[chosen.rows],
        "uncertainty": chosen.uncertainty,
        "diversity": chosen.diversity,
        "purpose": np.where(chosen.control, CONTROL, TRAIN),
    })  # fmt: skip
    at_random = chosen.control | (policy == "random")
    wanted["reason"] = [
        "drawn at random, to see what choosing gains" if drawn_at_random
        else f"uncertainty {unsure:.2f} of 1, distance {far:.2f} to the nearest image wanted more or labelled"
        for unsure, far, drawn_at_random in zip(chosen.uncertainty, chosen.diversity, at_random, strict=True)
    ]  # fmt: skip
    frame = pd.concat([drawn, wanted], ignore_index=True)
    return frame.assign(rank=np.arange(1, len(frame) + 1))
