"""Whether consensus with a model beats the majority vote, and ranks readers right, on real sets with simulated readers.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_consensus.py --draws 20

A draw takes 100 labels and a head on frozen SqueezeNet features from them, as `benchmarks/bench_learn.py` does, and 500
images of its pool. Five readers are right with probabilities 0.97, 0.92, 0.87, 0.80 and 0.70 and err evenly; each image
is read by two or three of them, drawn at random. The truth is the set's own label. "consensus" is ours, the majority
with ties broken by the head; "majority" breaks them at random, "crowdlab" takes the label of the best quality, "model"
is the head alone. "finds" is the area under the ROC curve of the consensus' quality for being right, "finds_agreement"
that of the share of readings that agree. Intervals are Student's t over draws.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from learning_sets import draw, features
from scipy import stats
from sklearn.metrics import roc_auc_score

from scanloop.studies.summary import mean_of

ACCURACIES = (0.97, 0.92, 0.87, 0.80, 0.70)
IMAGES, FOLDS = 500, 5
SETS = ("kermany", "kermany_causes", "pneumoniamnist", "breastmnist")


def readings(truth: np.ndarray, classes: int, each: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (n, readers) that simulated readers give, NaN where they read nothing."""
    given = np.full((len(truth), len(ACCURACIES)), np.nan)
    for row, right in enumerate(truth):
        for reader in rng.choice(len(ACCURACIES), each, replace=False):
            wrong = (right + rng.integers(1, classes)) % classes
            given[row, reader] = right if rng.random() < ACCURACIES[reader] else wrong
    return given


def majority(given: np.ndarray, tie_breaker: np.ndarray) -> np.ndarray:
    """Commonest label of each image; the larger of (n, classes) decides between equals."""
    votes = np.stack([(given == one).sum(axis=1) for one in range(tie_breaker.shape[1])], axis=1)
    return np.where(votes == votes.max(axis=1, keepdims=True), tie_breaker, -1.0).argmax(axis=1)


def one_draw(vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, each: int) -> dict[str, float]:
    """Shares of images whose label came out right, and the rank correlation of readers' quality with the truth."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    from scanloop.labelling.consensus import Read, find_consensus
    from scanloop.learning.heads import tune_head

    known, pool, _ = draw(vectors, labels, groups, seed)
    classes, rng = len(np.unique(labels)), np.random.default_rng([seed, each])
    rows = rng.permutation(pool.slice_ids)[:IMAGES]
    said, truth = tune_head(known, classes, FOLDS, seed).probabilities(vectors[rows]), labels[rows]
    given = readings(truth, classes, each, rng)
    names = tuple(f"r{number}" for number in range(len(ACCURACIES)))
    nobody = np.zeros(len(rows), dtype=bool)
    found = find_consensus(
        Read(tuple(map(str, rows)), names, given, said, tuple(map(str, range(classes))), nobody, nobody, 0)
    )
    best = get_label_quality_multiannotator(given, said, consensus_method="best_quality", verbose=False)
    read = ~np.isnan(given)
    right = ((given == truth[:, None]) & read).sum(axis=0) / read.sum(axis=0)
    answers = {
        "consensus": found.images["consensus"].astype(int).to_numpy(),
        "majority": majority(given, rng.random(said.shape)),
        "crowdlab": best["label_quality"]["consensus_label"].to_numpy(),
        "model": said.argmax(axis=1),
    }
    is_right = answers["consensus"] == truth
    finds = {"finds": found.images["quality"], "finds_agreement": found.images["agreement"]}
    areas = {name: float(roc_auc_score(is_right, one)) for name, one in finds.items()}
    ranks = float(stats.spearmanr(found.readers["quality"].astype(float), right).statistic)
    return {name: float((one == truth).mean()) for name, one in answers.items()} | areas | {"rank_correlation": ranks}


def main() -> None:
    """Print a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.sets:
        vectors, labels, groups = features(name, options.cache)
        for each in (2, 3):
            rows = [one_draw(vectors, labels, groups, seed, each) for seed in range(options.draws)]
            columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            result = {key: asdict(mean_of(values)) for key, values in columns.items()} | {
                f"gain_over_{other}": asdict(mean_of(columns["consensus"] - columns[other]))
                for other in ("majority", "crowdlab", "model")
            }
            results[f"{name}, {each} readings"] = result
            told = " ".join(f"{key} {100 * value['mean']:.1f}" for key, value in result.items())
            print(f"{name}, {each} readings an image: {told}", flush=True)
    print(json.dumps({"draws": options.draws, "images": IMAGES, "accuracies": ACCURACIES, "results": results}))


if __name__ == "__main__":
    main()
