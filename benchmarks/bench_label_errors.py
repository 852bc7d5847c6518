"""How many planted label errors are found among the first images that are proposed for reading, on real sets.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_label_errors.py --draws 10

A draw holds out 30 % of the groups and takes images of the others, one a group, at most 1,000. It swaps the labels of
5 or 10 % of them at random, and asks the tuned head on frozen SqueezeNet features, cross-validated by group, for out-
of-fold probabilities. `suspects` proposes; of the first k proposals (k the number of planted errors, and half of it)
those that were planted count. Precision is their share among the k, recall their share among the planted; by chance
precision is the share of errors. What the sets' publishers mislabelled themselves counts as a false alarm here. Then
the first k are read again by somebody who is right, and a head learns anew: macro-F1 on the held-out groups with the
errors ("noisy"), with these k read again ("reread"), with k images drawn at random read again ("random"), and without
any error ("clean"). Intervals are Student's t over draws.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from learning_sets import features, hold_out, rows_of
from sklearn.metrics import f1_score

from scanloop.studies.summary import mean_of

SETS = ("kermany", "pneumoniamnist", "breastmnist", "kermany_causes")
SHARES, IMAGES, FOLDS = (0.05, 0.10), 1000, 5


def out_of_fold(known: Any, classes: int, seed: int) -> np.ndarray:
    """Probabilities (n, classes) by heads that saw neither an image nor its group."""
    from scanloop.learning.cross_validation import group_folds
    from scanloop.learning.heads import tune_head

    found = np.empty((len(known.labels), classes))
    for cut in group_folds(known.labels, known.groups, FOLDS, 1, seed):
        tuned = tune_head(known.take(cut.train), classes, FOLDS, seed)
        found[cut.test] = tuned.probabilities(known.vectors[cut.test])
    return found


def one_draw(
    vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, share: float, images: int
) -> dict[str, float]:
    """Precision and recall of the proposals."""
    from scanloop.labelling.label_errors import suspects
    from scanloop.learning.heads import tune_head

    rng, classes = np.random.default_rng([seed, int(100 * share)]), len(np.unique(labels))
    held_out = hold_out(groups, seed)
    order = rng.permutation(np.flatnonzero(~held_out))
    _, one_each = np.unique(groups[order], return_index=True)
    rows = order[np.sort(one_each)][:images]
    planted = rng.permutation(len(rows)) < round(share * len(rows))
    given = np.where(planted, (labels[rows] + rng.integers(1, classes, len(rows))) % classes, labels[rows])
    noisy = labels.copy()
    noisy[rows] = given
    ranked = suspects(given, out_of_fold(rows_of(vectors, noisy, groups, rows), classes, seed))
    count = int(planted.sum())
    half = ranked[: count // 2]
    drawn = rng.permutation(len(rows))[:count]
    read = {"noisy": ranked[:0], "reread": ranked[:count], "random": drawn, "clean": np.arange(len(rows))}
    scores = {}
    for name, again in read.items():
        learnt = noisy.copy()
        learnt[rows[again]] = labels[rows[again]]
        head = tune_head(rows_of(vectors, learnt, groups, rows), classes, FOLDS, seed).head
        said = head.logits(vectors[held_out]).argmax(axis=1)
        scores[f"macro_f1_{name}"] = float(f1_score(labels[held_out], said, average="macro"))
    gains = {"gain": "noisy", "gain_over_random": "random"}
    return (
        scores
        | {name: scores["macro_f1_reread"] - scores[f"macro_f1_{one}"] for name, one in gains.items()}
        | {
            "precision_first_half": float(planted[half].mean()) if len(half) else 0.0,
            "precision": float(planted[ranked[:count]].sum() / count),
            "recall_of_all_proposals": float(planted[ranked].sum() / count),
            "precision_of_all_proposals": float(planted[ranked].mean()) if len(ranked) else 0.0,
            "proposals": len(ranked),
            "planted": count,
            "images": len(rows),
        }
    )


def main() -> None:
    """Print a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.sets:
        vectors, labels, groups = features(name, options.cache)
        for share in options.shares:
            rows = [one_draw(vectors, labels, groups, seed, share, options.images) for seed in range(options.draws)]
            result = {key: asdict(mean_of([row[key] for row in rows])) for key in rows[0]}
            results[f"{name}, {share:.0%}"] = result
            told = " ".join(f"{key} {value['mean']:.3f}" for key, value in result.items())
            print(f"{name}, {share:.0%} planted: {told}", flush=True)
    print(json.dumps({"draws": options.draws, "results": results}))


if __name__ == "__main__":
    main()
