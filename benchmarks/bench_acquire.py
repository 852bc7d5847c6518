"""How many labels each policy needs, against random draws: macro-F1 of the head by number of labels, with an oracle.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_acquire.py --seeds 20 --output runs/acquire

Frozen SqueezeNet features at 224 pixels, cached below --cache. Images of one patient and near-duplicates form a group.
A seed keeps 30 % of the groups as hold-out and starts with two labels a class, the same for every policy; the policy
then buys from the rest in steps up to 500 labels, one image a group, with 5 % of each purchase drawn at random. What
is compared is the number of labels at which the mean curve over the seeds first reaches 95 % of the head that learnt
from every label, by linear interpolation, as a ratio to random draws; its interval resamples the seeds, which share
images. The penalty of the head is fixed, so that the labels alone differ; --tuned chooses it anew at each step.

"forecast" holds what `acquire` forecasts of doubling the labels of the policies "random" and "auto" against what the
hold-out then says: the share of forecasts whose 90 % interval holds the gain, and both means. A gain on a hold-out
varies with its images too, which no forecast knows.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from learning_sets import features, hold_out

STEPS = (10, 20, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 400, 500)
SETS = ("kermany", "pneumoniamnist", "breastmnist", "kermany_causes")
PENALTY, FOLDS, GOAL, CONTROL, BREADTH = 0.01, 5, 0.95, 0.05, 8
FORECAST_AT = {50: 100, 100: 200, 200: 400}
START, RESAMPLES, PRICE_EUR = 2, 2000, 0.55


def known_of(vectors: Any, labels: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> Any:
    """Labelled rows, all of which may judge."""
    from scanloop.learning.dataset import Known

    return Known(rows, vectors[rows], labels[rows], groups[rows], np.ones(len(rows), dtype=bool))


def head_of(known: Any, classes: int, tuned: bool, seed: int) -> Any:
    """The head that both the policy and the hold-out meet."""
    from scanloop.learning.heads import TunedHead, fit_head, tune_head

    if tuned:
        return tune_head(known, classes, FOLDS, seed)
    return TunedHead(fit_head(known.vectors, known.labels, classes, PENALTY), PENALTY, 1.0, np.empty(0))


def first_labels(labels: np.ndarray, groups: np.ndarray, order: np.ndarray) -> list[int]:
    """Two images a class, of as many groups, in the order given."""
    found: list[int] = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rows = rows[~np.isin(groups[rows], groups[found])]
        _, first = np.unique(groups[rows], return_index=True)
        found += rows[np.sort(first)][:START].tolist()
    return found


def curve(data: tuple[Any, np.ndarray, np.ndarray], policy: str, seed: int, tuned: bool) -> dict[str, Any]:
    """Macro-F1 on the hold-out at each number of labels, that of all labels, and the forecasts made on the way."""
    from sklearn.metrics import f1_score

    from scanloop.acquisition.policy import select
    from scanloop.acquisition.situation import Situation, unit_rows
    from scanloop.learning.value import value_of_labels

    vectors, labels, groups = data
    held_out, classes = hold_out(groups, seed), len(np.unique(labels))
    test, train = np.flatnonzero(held_out), np.flatnonzero(~held_out)
    rows = np.array(first_labels(labels, groups, np.random.default_rng(seed).permutation(train)))

    def score(head: Any) -> float:
        return 100 * float(f1_score(labels[test], head.probabilities(vectors[test]).argmax(axis=1), average="macro"))

    whole = head_of(known_of(vectors, labels, groups, train), classes, False, seed)
    found: dict[str, Any] = {"all": score(whole), "points": {}, "forecasts": {}}
    for step in STEPS:
        known = known_of(vectors, labels, groups, rows)
        pool = train[~np.isin(groups[train], groups[rows])]
        head = head_of(known, classes, tuned, seed)
        situation = Situation(
            head.probabilities(vectors[pool]), vectors[pool], groups[pool], np.ones(len(pool), dtype=bool),
            unit_rows(known.vectors, np.arange(len(rows))), known.labels, head.probabilities, BREADTH, seed,
        )  # fmt: skip
        rows = np.concatenate([rows, pool[select(situation, step - len(rows), policy, CONTROL, 2).rows]])
        if len(rows) < step:
            break
        known = known_of(vectors, labels, groups, rows)
        found["points"][step] = score(head_of(known, classes, tuned, seed))
        if step in FORECAST_AT and policy in ("auto", "random"):
            value = value_of_labels(known, classes, PENALTY, PRICE_EUR, FORECAST_AT[step] - step, seed)
            if value is not None:
                found["forecasts"][step] = [100 * one for one in (value.gain, value.gain_low, value.gain_high)]
    return found


def labels_needed(curves: np.ndarray, steps: np.ndarray, goal: float) -> float:
    """Labels at which the mean of curves (seeds, steps) first reaches the goal; infinity where it never does."""
    mean = curves.mean(axis=0)
    reached = np.flatnonzero(mean >= goal)
    if not len(reached):
        return float("inf")
    place = int(reached[0])
    if place == 0:
        return float(steps[0])
    before, after = mean[place - 1], mean[place]
    return float(steps[place - 1] + (steps[place] - steps[place - 1]) * (goal - before) / (after - before))


def rounded(values: dict[Any, Any]) -> dict[Any, float]:
    """Values to two places."""
    return {key: round(float(value), 2) for key, value in values.items()}


def finite(value: float, places: int) -> float | None:
    """A value to so many places; None for infinity."""
    return round(float(value), places) if np.isfinite(value) else None


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each policy's curve, the labels that it needs, and their ratio to random draws with its interval."""
    steps = np.array(sorted(set.intersection(*({*run["points"]} for part in runs.values() for run in part))))
    goal = GOAL * float(np.mean([run["all"] for run in runs["random"]]))
    curves = {name: np.array([[run["points"][step] for step in steps] for run in part]) for name, part in runs.items()}
    draws = np.random.default_rng(0).integers(0, len(runs["random"]), (RESAMPLES, len(runs["random"])))
    by_chance = np.array([labels_needed(curves["random"][draw], steps, goal) for draw in draws])
    base = labels_needed(curves["random"], steps, goal)
    found: dict[str, Any] = {"all_labels": round(goal / GOAL, 2), "goal": round(goal, 2), "policies": {}}
    for name, values in curves.items():
        needed = labels_needed(values, steps, goal)
        drawn = np.array([labels_needed(values[draw], steps, goal) for draw in draws])
        known = np.isfinite(drawn) | np.isfinite(by_chance)
        ratios = np.where(np.isfinite(by_chance[known]), drawn[known] / by_chance[known], 0.0)
        low, high = np.quantile(ratios, [0.025, 0.975])
        found["policies"][name] = {
            "macro_f1": rounded(dict(zip(steps.tolist(), values.mean(axis=0), strict=True))),
            "deviation": rounded(dict(zip(steps.tolist(), values.std(axis=0, ddof=1), strict=True))),
            "labels_needed": finite(needed, 1),
            "ratio": finite(needed / base, 3),
            "interval": [finite(low, 3), finite(high, 3)],
            "forecast": coverage(runs[name]),
        }
    return found


def coverage(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """How forecasts of doubling the labels fared, by the labels that they were made with."""
    found = {}
    for step, later in FORECAST_AT.items():
        part = [run for run in runs if step in run["forecasts"] and later in run["points"]]
        if part:
            gains = np.array([run["points"][later] - run["points"][step] for run in part])
            said = np.array([run["forecasts"][step] for run in part])
            inside = (gains >= said[:, 1]) & (gains <= said[:, 2])
            width = said[:, 2] - said[:, 1]
            means = {
                "inside": inside.mean(),
                "gain": gains.mean(),
                "forecast": said[:, 0].mean(),
                "width": width.mean(),
            }
            found[step] = {"n": len(part)} | rounded(means)
    return found


def main() -> None:
    """Run each policy on each set; write one JSON a set and policy, and print the comparison."""
    from scanloop.acquisition.policy import POLICIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--policies", nargs="+", choices=sorted(POLICIES), default=sorted(POLICIES))
    parser.add_argument("--tuned", action="store_true", help="Choose the penalty anew at each step: slow")
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    parser.add_argument("--output", type=Path, default=Path("runs/acquire"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"benchmark": "bench_acquire", "n": arguments.seeds, "tuned": arguments.tuned}
    for name in arguments.sets:
        data, started, runs = features(name, arguments.cache), time.perf_counter(), {}
        for policy in ("random", *(one for one in arguments.policies if one != "random")):
            runs[policy] = [curve(data, policy, seed, arguments.tuned) for seed in range(arguments.seeds)]
            (arguments.output / f"{name}-{policy}.json").write_text(json.dumps(runs[policy], indent=1))
        figures[name] = compared(runs) | {"seconds": round(time.perf_counter() - started, 1)}
        print(json.dumps({name: figures[name]}), flush=True)
    (arguments.output / "comparison.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
