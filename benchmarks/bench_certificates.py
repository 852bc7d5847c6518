"""Whether certificates of pseudo-labels hold: what is promised against the truth that was hidden, over many draws.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_certificates.py --splits 200

Sets, features and splits are those of bench_learn. In each split 100 labels train a head; of the rest, the pool, so
many images are drawn at random, one a group, and their labels audit the head's promotions. A certificate that promotes
anything is false where, of the pool's images that it promotes, fewer are right than it says; as it speaks of images
drawn one a group, a group counts once. The share of false ones stands with its exact 95 % interval.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from bench_learn import FOLDS
from learning_sets import draw, features
from scipy.stats import beta

SETS = ("kermany", "pneumoniamnist", "breastmnist")
AUDITS = (100, 200, 400)


def exact_interval(count: int, total: int) -> list[float]:
    """Clopper and Pearson's 95 % interval of a share."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return [round(float(low), 4), round(float(high), 4)]


def one_split(vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, rule: Any) -> list[dict[str, Any]]:
    """What each size of audit certifies in a split, and the truth."""
    from learning_sets import rows_of

    from scanloop.acquisition.audit import draw_audit
    from scanloop.learning.heads import tune_head
    from scanloop.learning.promotion import decide, group_share
    from scanloop.learning.pseudo_labels import propose

    known, pool, _ = draw(vectors, labels, groups, seed)
    tuned = tune_head(known, 2, FOLDS, seed)
    proposal = propose(tuned, known, pool, 2, rule)
    right = proposal.labels == labels[pool.slice_ids]
    order = draw_audit(pool.groups, max(AUDITS), seed + 10_000)
    found = []
    for size in AUDITS:
        audit = rows_of(vectors, labels, groups, pool.slice_ids[order[:size]])
        promotion = decide(tuned, known, audit, proposal, pool, rule)
        row: dict[str, Any] = {"audit": len(audit.labels), "missing": promotion.missing_labels}
        if promotion.thresholds is not None:
            promoted = proposal.above(np.array(promotion.thresholds))
            weight = group_share(promoted, pool.groups)
            parts = [promoted] + [promoted & (proposal.labels == claim.scope) for claim in promotion.certificate.claims
                                  if claim.scope >= 0 and claim.threshold is not None]  # fmt: skip
            precisions = [float((group_share(part, pool.groups) * right).sum() / group_share(part, pool.groups).sum())
                          for part in parts if part.any()]  # fmt: skip
            row |= {
                "precision": float((weight * right).sum() / weight.sum()),
                "by_image": float(right[promoted].mean()),
                "false": min(precisions) < rule.precision,
                "coverage": float(promoted.mean()),
                "classes": len(promotion.certificate.claims) > 1,
            }
        found.append(row)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one size of audit over all splits."""
    certified = [row for row in rows if "precision" in row]
    figures: dict[str, Any] = {
        "n": len(rows),
        "audit_labels": rows[0]["audit"],
        "certified": len(certified),
        "certified_share": round(len(certified) / len(rows), 3),
        "missing_median": float(np.median([row["missing"] or 0 for row in rows])),
    }
    if certified:
        false = sum(row["false"] for row in certified)
        figures |= {
            "false": false,
            "false_share": round(false / len(certified), 4),
            "false_interval": exact_interval(false, len(certified)),
            "coverage": round(float(np.mean([row["coverage"] for row in certified])), 3),
            "precision_mean": round(float(np.mean([row["precision"] for row in certified])), 4),
            "precision_least": round(float(np.min([row["precision"] for row in certified])), 4),
            "by_image_mean": round(float(np.mean([row["by_image"] for row in certified])), 4),
            "by_class_share": round(float(np.mean([row["classes"] for row in certified])), 3),
        }
    return figures


def main() -> None:
    """Measure each set in turn; print the figures as JSON."""
    from scanloop.sections.pool import PseudoLabelConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--precision", type=float, default=0.95)
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    arguments = parser.parse_args()
    rule = PseudoLabelConfig(precision=arguments.precision)
    figures: dict[str, Any] = {"benchmark": "bench_certificates", "precision": rule.precision, "delta": rule.delta}
    for name in arguments.sets:
        vectors, labels, groups = features(name, arguments.cache)
        rows = [one_split(vectors, labels, groups, seed, rule) for seed in range(arguments.splits)]
        figures[name] = {str(size): summary([row[at] for row in rows]) for at, size in enumerate(AUDITS)}
        print(json.dumps({name: figures[name]}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
