"""Whether more labels would help: macro-F1 of the supervised head against the number of labelled groups.

Groups are added in a random order, class by class in proportion, so that each smaller set lies in the larger ones;
several orders are drawn. The curve is the head's on frozen features, not the deployed model's.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from scanloop.evaluation.comparison import Holdout, difference_interval, metric_interval
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.metrics import macro_f1
from scanloop.types import Float, Groups, Labels

Cut: TypeAlias = tuple[Labels, Labels]
"""Rows to learn from and rows to predict; no group stands in both."""

Learner: TypeAlias = Callable[[Labels, Labels, int], Float | None]
"""From rows to learn from, rows to predict and a seed to probabilities (rows, classes); None with too few rows."""

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the labelled groups that are learnt from."""


def learning_curve(
    cuts: Sequence[Sequence[Cut]], learn: Learner, labels: Labels, groups: Groups, plan: Resampling, classes: int
) -> dict[str, Any]:
    """Content of `learning_curve.json`.

    Args:
        cuts: For each draw its cuts; the rows that are predicted are the same in each draw, and each is predicted once.
        learn: Trains and predicts.
        labels: (n,) class indices of all rows.
        groups: (n,) groups of all rows.
        plan: Resamples, confidence and seed.
        classes: Number of classes.

    Returns:
        "points": for each share the groups learnt from (mean over cuts and draws), macro-F1 with its interval over the
        judged groups, and the least and largest macro-F1 of a single draw; shares with too few labels are left out.
        "gain": macro-F1 of all groups minus that of the point nearest to half of them, paired; None with one point.
    """
    judged = np.sort(np.concatenate([test for _, test in cuts[0]]))
    holdout = Holdout(labels[judged], groups[judged])
    points: list[dict[str, Any]] = []
    kept: list[Float] = []
    for share in SHARES:
        found = [_drawn(share, number, parts, learn, (labels, groups), classes) for number, parts in enumerate(cuts)]
        if any(one is None for one in found):
            continue
        whole = [one for one in found if one is not None]
        probabilities = np.stack([values[judged] for values, _ in whole])
        single = [float(macro_f1(values, holdout.labels)[0]) for values in probabilities]
        points.append({
            "share": share,
            "groups": float(np.mean([size for _, size in whole])),
            "macro_f1": metric_interval("macro_f1", probabilities, holdout, plan),
            "draw_low": min(single),
            "draw_high": max(single),
        })  # fmt: skip
        kept.append(probabilities)
    if not points:
        return {"draws": len(cuts), "points": [], "gain": None}
    half = min(range(len(points)), key=lambda place: abs(points[place]["groups"] - points[-1]["groups"] / 2))
    gain = None
    if half < len(points) - 1:
        difference = difference_interval("macro_f1", kept[-1], kept[half], holdout, plan)
        gain = {"from_groups": points[half]["groups"], "to_groups": points[-1]["groups"], "macro_f1": difference}
    return {"draws": len(cuts), "points": points, "gain": gain}


def nested(labels: Labels, groups: Groups, share: float, seed: int) -> Labels:
    """Rows of the first groups of a random order, as many of each class in proportion, at least one of each.

    Args:
        labels: (n,) class indices; a group counts for the class of its first row.
        groups: (n,).
        share: Of the groups, in (0, 1]; the rows of a smaller share are among those of a larger one.
        seed: Of the order.

    Returns:
        Row numbers, sorted.
    """
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.zeros(len(names), dtype=bool)
    for label in np.unique(labels[first]):
        of_class = order[labels[first][order] == label]
        chosen[of_class[: max(1, round(share * len(of_class)))]] = True
    return np.flatnonzero(chosen[member])


def _drawn(
    share: float, number: int, cuts: Sequence[Cut], learn: Learner, rows: tuple[Labels, Groups], classes: int
) -> tuple[Float, float] | None:
    """Probabilities (n, classes) of the judged rows of one draw, and the groups learnt from; None if too few."""
    labels, groups = rows
    found, sizes = np.full((len(labels), classes), np.nan), []
    for train, test in cuts:
        part = train[nested(labels[train], groups[train], share, number)]
        probabilities = learn(part, test, number)
        if probabilities is None:
            return None
        found[test] = probabilities
        sizes.append(len(np.unique(groups[part])))
    return found, float(np.mean(sizes))
