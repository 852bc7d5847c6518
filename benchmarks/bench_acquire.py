"""How many labels each policy needs, against random draws: macro-F1 of the head by number of labels, with an oracle.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_acquire.py --seeds 20 --output runs/acquire

Frozen SqueezeNet features at 224 pixels, cached below --cache. Images of one patient and near-duplicates form a group.
A seed keeps 30 % of the groups as hold-out and starts with two labels a class, the same for every policy; the policy
then buys from the rest in steps up to 500 labels, one image a group, with 5 % of each purchase drawn at random. What
is compared is the number of labels at which the mean curve over the seeds first reaches 95 % of the head that learnt
from every label, by linear interpolation, as a ratio to random draws; its interval resamples the seeds, which share
images. The penalty of the head is fixed, so that the labels alone differ; --tuned chooses it anew at each step.

"forecast" holds what `acquire` forecasts against what the hold-out then says: from 100 labels drawn at random, which
judge, the policies "random" and "auto" buy 100 more and then 200. "inside" is the share of forecasts whose 90 %
interval holds the mean gain over the seeds; that of a single seed varies with its labels and its hold-out, too.
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
PENALTY, FOLDS, GOAL, CONTROL, BREADTH = 0.01, 5, 0.95, 0.05, 4
START, RESAMPLES, PRICE_EUR = 2, 2000, 0.55
OTHERS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:olive", "tab:cyan")
GIVEN, FORECAST_AT = 100, {100: 200, 200: 400}


Data = tuple[Any, np.ndarray, np.ndarray]
"""Vectors, labels and groups of a set."""


def known_of(data: Data, rows: np.ndarray, given: int | None = None) -> Any:
    """Labelled rows, of which the first ones judge; all where nobody says how many."""
    from scanloop.learning.dataset import Known

    vectors, labels, groups = data
    drawn = np.arange(len(rows)) < (len(rows) if given is None else given)
    return Known(rows, vectors[rows], labels[rows], groups[rows], drawn)


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


def bought(data: Data, policy: str, rows: np.ndarray, count: int, seed: int, head: Any) -> np.ndarray:
    """The labelled rows with as many more as the policy buys of the pool outside of the hold-out."""
    from scanloop.acquisition.policy import select
    from scanloop.acquisition.situation import Situation, unit_rows

    vectors, labels, groups = data
    pool = np.flatnonzero(~hold_out(groups, seed) & ~np.isin(groups, groups[rows]))
    situation = Situation(
        head.probabilities(vectors[pool]), vectors[pool], groups[pool], np.ones(len(pool), dtype=bool),
        unit_rows(vectors, rows), labels[rows], head.probabilities, BREADTH, seed,
    )  # fmt: skip
    return np.concatenate([rows, pool[select(situation, count, policy, CONTROL, 2).rows]])


def score(data: Data, head: Any, seed: int) -> float:
    """Macro-F1 on the hold-out, in points."""
    from sklearn.metrics import f1_score

    vectors, labels, groups = data
    test = np.flatnonzero(hold_out(groups, seed))
    return 100 * float(f1_score(labels[test], head.probabilities(vectors[test]).argmax(axis=1), average="macro"))


def curve(data: Data, policy: str, seed: int, tuned: bool) -> dict[str, Any]:
    """Macro-F1 on the hold-out at each number of labels, and that of all labels."""
    _, labels, groups = data
    train, classes = np.flatnonzero(~hold_out(groups, seed)), len(np.unique(labels))
    rows = np.array(first_labels(labels, groups, np.random.default_rng(seed).permutation(train)))
    whole = head_of(known_of(data, train), classes, False, seed)
    found: dict[str, Any] = {"all": score(data, whole, seed), "points": {}}
    head = head_of(known_of(data, rows), classes, tuned, seed)
    for step in STEPS:
        rows = bought(data, policy, rows, step - len(rows), seed, head)
        if len(rows) < step:
            break
        head = head_of(known_of(data, rows), classes, tuned, seed)
        found["points"][step] = score(data, head, seed)
    return found


def forecasts(data: Data, policy: str, seed: int) -> dict[int, list[float]]:
    """By the labels at hand: gain forecast, its bounds, and the gain that came; in points."""
    from scanloop.learning.value import value_of_labels

    _, labels, groups = data
    train, classes = np.flatnonzero(~hold_out(groups, seed)), len(np.unique(labels))
    order = np.random.default_rng(seed).permutation(train)
    _, first = np.unique(groups[order], return_index=True)
    rows, found = order[np.sort(first)][:GIVEN], {}
    for step, later in FORECAST_AT.items():
        known = known_of(data, rows, GIVEN)
        value = value_of_labels(known, classes, PENALTY, PRICE_EUR, later - step, seed)
        head = head_of(known, classes, False, seed)
        rows = bought(data, policy, rows, later - step, seed, head)
        if value is not None and len(rows) == later:
            gain = score(data, head_of(known_of(data, rows), classes, False, seed), seed) - score(data, head, seed)
            found[step] = [*(100 * one for one in (value.gain, value.gain_low, value.gain_high)), gain]
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
        }
    return found


def coverage(runs: list[dict[int, list[float]]]) -> dict[int, Any]:
    """How forecasts fared, by the labels that they were made with."""
    found = {}
    for step in FORECAST_AT:
        said = np.array([run[step] for run in runs if step in run])
        if len(said):
            forecast, low, high, gain = said.mean(axis=0)
            inside = (said[:, 1] <= gain) & (gain <= said[:, 2])
            about = {"forecast": forecast, "low": low, "high": high, "gain": gain, "inside": inside.mean()}
            found[step] = {"n": len(said)} | rounded(about)
    return found


def drawing(figures: dict[str, Any]) -> Any:
    """Curves of each policy, a panel a set; random draws in black, `auto` in front."""
    from matplotlib.figure import Figure

    sets = [name for name in figures if isinstance(figures[name], dict)]
    figure = Figure(figsize=(9, 3 * ((len(sets) + 1) // 2)), layout="constrained")
    for place, name in enumerate(sets, start=1):
        axes = figure.add_subplot((len(sets) + 1) // 2, 2, place)
        for number, (policy, about) in enumerate(sorted(figures[name]["policies"].items())):
            points = {int(step): value for step, value in about["macro_f1"].items()}
            colour, width, order = {"auto": ("red", 2.5, 3), "random": ("black", 2.0, 2)}.get(
                policy, (OTHERS[number % len(OTHERS)], 1.0, 1)
            )
            axes.plot([*points], [*points.values()], color=colour, lw=width, zorder=order, label=policy)
        axes.axhline(figures[name]["goal"], color="grey", lw=0.8, ls=":")
        axes.set(xscale="log", title=name, xlabel="labels", ylabel="macro-F1", ylim=(figures[name]["goal"] - 30, None))
        axes.set_xticks([10, 20, 50, 100, 200, 500], ["10", "20", "50", "100", "200", "500"])
    axes.legend(fontsize=7, ncols=2)
    return figure


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
        found = compared(runs)
        for policy in {"random", "auto"} & {*arguments.policies}:
            told = coverage([forecasts(data, policy, seed) for seed in range(arguments.seeds)])
            found["policies"][policy]["forecast"] = told
        figures[name] = found | {"seconds": round(time.perf_counter() - started, 1)}
        print(json.dumps({name: figures[name]}), flush=True)
    (arguments.output / "comparison.json").write_text(json.dumps(figures, indent=1))
    drawing(figures).savefig(arguments.output / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
