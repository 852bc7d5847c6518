"""What unlabelled images add to 100 labels: the policy and each method against a tuned supervised head, paired.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_learn.py --splits 20

Frozen SqueezeNet features at 224 pixels, cached below --cache. Images of one patient and near-duplicates form a group.
Of the chest X-rays and both MedMNIST sets, a split keeps 30 % of the groups as hold-out, draws 100 labels from the
rest, one a group, and leaves the others as pool; all methods see the same split. The brain set has 99 labels and its
own pool: a split is one partition of group cross-validation, and is judged on all its held-out images together. The
interval of a mean gain is that of Student's t over the splits: these share images, so it speaks of the draw of labels,
not of other archives. "supervised_balanced" weighs classes by their frequency and knows no pool: what it gains is no
gain of unlabelled images.

"beside_supervised" and "beside_policy" are the tuned head and the policy where an encoder that was trained on the set's
own images without labels stands beside SqueezeNet (`pretrain.beside`), and a head looks at it where the lower 95 %
bound of what its out-of-fold log-loss gains is above zero. It is trained anew for each split on images outside of the
hold-out (of the brain set: on the pool alone, once), and its vectors are cached as well; --without-training leaves both
out.
"""

import argparse
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from learning_sets import LABELS, draw, features, hold_out, own_features, rows_of, side_by_side
from scipy import stats

FOLDS, REPEATS = 5, 1
SETS = ("kermany", "pneumoniamnist", "breastmnist", "brain", "kermany_causes")
CHOICES = ("chosen", "looked_beside")


def answered(known: Any, pool: Any, test: Any, seed: int, names: Collection[str]) -> tuple[Any, str, dict[str, Any]]:
    """The tuned head, what the policy chose, and classes (n,) of the hold-out by both and by these methods."""
    from scanloop.learning.heads import tune_head
    from scanloop.learning.semisupervised import policy

    classes = len(np.unique(known.labels))
    tuned = tune_head(known, classes, FOLDS, seed)
    choice = policy.choose(policy.gather(known, pool, classes, FOLDS, REPEATS, seed)).name
    heads = policy.heads(tuned, known, pool, [name for name in policy.METHODS if name in {*names, choice}])
    return tuned, choice, {name: head.logits(test.vectors).argmax(axis=1) for name, head in heads.items()}


def one_split(known: Any, pool: Any, test: Any, seed: int) -> dict[str, np.ndarray]:
    """Predicted classes of the hold-out by what predicts, and under "policy" those of what the policy chose."""
    from scanloop.learning.heads import fit_head
    from scanloop.learning.semisupervised import policy

    tuned, choice, found = answered(known, pool, test, seed, policy.METHODS)
    classes = len(np.unique(known.labels))
    weights = len(known.labels) / (classes * np.bincount(known.labels)[known.labels])
    balanced = fit_head(known.vectors, known.labels, classes, tuned.c, weights)
    found["supervised_balanced"] = balanced.logits(test.vectors).argmax(axis=1)
    return found | {"policy": found[choice], "chosen": np.array(choice)}


def beside(known: Any, pool: Any, test: Any, seed: int) -> dict[str, np.ndarray]:
    """As `one_split`, of vectors by two encoders: the tuned head, the policy, and whether the head looks at both."""
    tuned, choice, found = answered(known, pool, test, seed, ())
    looks = np.array(tuned.width is None)
    return {"beside_supervised": found["supervised"], "beside_policy": found[choice], "looked_beside": looks}


def draws(name: str, vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, first: int | None) -> Any:
    """Labels, pool and hold-out of each part of a split, which is one, and of the brain set one for each fold."""
    from scanloop.learning.cross_validation import group_folds
    from scanloop.learning.dataset import Pool

    if name != "brain":
        yield draw(vectors, labels, groups, seed, first)
        return
    every = rows_of(vectors, labels, groups, np.flatnonzero(labels >= 0), first)
    unlabelled = np.flatnonzero(labels < 0)
    pool = Pool(unlabelled, vectors[unlabelled], groups[unlabelled])
    for cut in group_folds(every.labels, every.groups, FOLDS, 1, seed):
        test = every.take(cut.test)
        yield every.take(cut.train), pool.without(test.groups), test


def scores(name: str, splits: int, cache: Path, trained: bool) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Macro-F1 of each way in each split, in points, and what was chosen."""
    from sklearn.metrics import f1_score

    vectors, labels, groups = features(name, cache)
    brain, images = name == "brain", name.removesuffix("_causes")
    found: dict[str, list[float]] = {}
    chosen: dict[str, list[str]] = {}
    for seed in range(splits):
        answers: dict[str, list[np.ndarray]] = {}
        truth: list[np.ndarray] = []
        for known, pool, test in draws(name, vectors, labels, groups, seed, None):
            truth.append(test.labels)
            for way, values in one_split(known, pool, test, seed).items():
                answers.setdefault(way, []).append(values)
        if trained:
            seen = ~np.isin(groups, groups[labels >= 0]) if brain else ~hold_out(groups, seed)
            both = side_by_side(vectors, own_features(images, seen, 0 if brain else seed, cache))
            for known, pool, test in draws(name, both, labels, groups, seed, vectors.shape[1]):
                for way, values in beside(known, pool, test, seed).items():
                    answers.setdefault(way, []).append(values)
        for way in (one for one in CHOICES if one in answers):
            chosen.setdefault(way, []).extend(str(one) for one in answers.pop(way))
        for way, parts in answers.items():
            found.setdefault(way, []).append(
                100 * float(f1_score(np.concatenate(truth), np.concatenate(parts), average="macro"))
            )
    return found, chosen


def gain(ours: list[float], base: list[float]) -> dict[str, Any]:
    """Mean paired gain in points with its 95 % interval, the share of splits that win, tie, and the worst."""
    difference = np.array(ours) - np.array(base)
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    mean = difference.mean()
    return {
        "macro_f1": round(float(np.mean(ours)), 2),
        "gain": round(float(mean), 2),
        "interval": [round(float(mean - half), 2), round(float(mean + half), 2)],
        "wins": round(float((difference > 0).mean()), 2),
        "ties": round(float((difference == 0).mean()), 2),
        "worst": round(float(difference.min()), 2),
    }


def main() -> None:
    """Measure each set in turn; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--without-training", action="store_true", help="SqueezeNet alone: minutes instead of an hour")
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "bench_learn", "n": arguments.splits, "labels": LABELS}
    for name in arguments.sets:
        started = time.perf_counter()
        found, chosen = scores(name, arguments.splits, arguments.cache, not arguments.without_training)
        base = found.pop("supervised")
        row: dict[str, Any] = {"supervised": round(float(np.mean(base)), 2)}
        row |= {way: gain(values, base) for way, values in found.items()}
        row |= {way: {one: made.count(one) for one in sorted(set(made))} for way, made in chosen.items()}
        row["seconds"] = round(time.perf_counter() - started, 1)
        figures[name] = row
        print(json.dumps({name: row}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
