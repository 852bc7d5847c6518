"""The promotion gate: each check decides on a confidence bound and explains itself in one sentence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scanloop.config import PromoteConfig
from scanloop.evaluation.exact import at_tail, f1_lower_bound
from scanloop.evaluation.judged import Judged, against
from scanloop.evaluation.tallies import Tally, lower_bound, macro_f1, macro_f1_difference, tally, tilted_p_value
from scanloop.types import Interval

CHAMPION_CHECK, BEST_CHECK = "against the champion", "against the best champion so far"


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes:
        name: Short name.
        passed: Whether it holds.
        value: What was measured: a count, a confidence bound, or a p-value.
        bound: What it is held against.
        sentence: Both in words.
    """

    name: str
    passed: bool
    value: float
    bound: float
    sentence: str


@dataclass(frozen=True)
class Rival:
    """A model that was champion, on the hold-out.

    Attributes:
        version: Its version in the registry.
        predictions: Its `predictions.parquet`.
        classes: Its classes, in the order of its probabilities.
    """

    version: str
    predictions: pd.DataFrame
    classes: Sequence[str]


def looks_check(look: int, config: PromoteConfig) -> Check:
    """Whether the hold-out may judge one model more.

    Args:
        look: Which model this is on the hold-out, from 1.
        config: Most looks.
    """
    passed = look <= config.max_looks
    sentence = f"this is look {look} of {config.max_looks} at this hold-out"
    if not passed:
        sentence = (
            f"this hold-out has judged {look - 1} models, and promote.max_looks allows {config.max_looks}: collect a "
            "new hold-out (new groups, drawn at random and labelled), since whoever tries often enough passes by luck"
        )
    return Check("looks at the hold-out", passed, look, config.max_looks, sentence)


def hold_out_checks(
    f1: Interval, judged: Judged, groups: int, gain: Interval | None, tail: float, config: PromoteConfig
) -> list[Check]:
    """What a model must reach on its own hold-out: enough groups, macro-F1, and no harm by pseudo-labels.

    Args:
        f1: Macro-F1 of the deployed arm.
        judged: What it says of the hold-out; its bound is the smaller one, where resampling is blind.
        groups: Independent groups of the hold-out.
        gain: Macro-F1 of semi-supervised minus supervised, paired; None where no pseudo-label was used.
        tail: One-sided error rate of the bounds.
        config: Bounds.
    """
    enough = groups >= config.min_groups
    missing = f"{config.min_groups - groups} fewer than the {config.min_groups} that a decision needs"
    counted = f"the hold-out has {groups} independent groups, "
    counted += f"at least {config.min_groups}" if enough else missing
    checks = [Check("hold-out groups", enough, groups, config.min_groups, counted)]
    low = at_tail(f1, tail)
    if f1.method != "bootstrap":
        low = min(low, f1_lower_bound(judged, tail, config.seed))
    reached = f"the lower bound of macro-F1 is {low:.3f} (value {f1.value:.3f}, n={f1.n}), to be at least"
    checks.append(Check("macro-F1", low >= config.min_f1, low, config.min_f1, f"{reached} {config.min_f1:g}"))
    one = judged.one_a_group(config.seed)
    found = tally(one.labels, one.groups, [one.probabilities.argmax(axis=1)], one.probabilities.shape[1])
    p_value = tilted_p_value(found, macro_f1(found), config.min_f1, tail, config.seed) if config.min_f1 > 0 else 0.0
    sentence = f"a model of macro-F1 {config.min_f1:g} would look this good with a chance of {p_value:.2g}"
    checks.append(_by_chance("macro-F1 by chance", p_value, tail, sentence, len(one.labels)))
    if gain is not None:
        low = at_tail(gain, tail)
        sentence = f"against supervised, {_change(gain.value, low, config.margin)}"
        checks.append(Check("pseudo-labels do no harm", low >= -config.margin, low, -config.margin, sentence))
    return checks


def rival_checks(name: str, ours: Judged, classes: Sequence[str], rival: Rival, tail: float,
                 config: PromoteConfig) -> list[Check]:  # fmt: skip
    """Challenger against a champion on the hold-out images that both were measured on, paired by group.

    Two conditions, since each is blind where the other is not. The bound by bootstrap of whole groups knows that images
    of a group err together; it is too narrow where few groups tell the models apart. The chance that a challenger worse
    by the margin would look this good is computed where that is true, on one image of each group.

    Neither holds where they know other classes, or the same in another order: nothing could be compared.

    Args:
        name: Name of the checks.
        ours: The challenger on its hold-out.
        classes: Class names in the order of the challenger's probabilities.
        rival: The champion.
        tail: One-sided error rate of the bounds.
        config: Margin and least number of groups.
    """
    if list(classes) != list(rival.classes):
        return [_other_classes(name, classes, rival.classes)]
    both = against(ours, rival.predictions)
    if both.count < config.min_groups:
        shared = f"champion and challenger share {both.count} hold-out groups"
        sentence = f"{shared}; {config.min_groups} are needed to compare them"
        return [Check(name, False, both.count, config.min_groups, sentence)]
    assert both.rival is not None
    same = np.array_equal(both.probabilities, both.rival)
    found, single = (_of_both(rows) for rows in (both, both.one_a_group(config.seed)))
    difference = macro_f1_difference(found)
    value = 0.0 if same else float(difference(found.total)[0])
    low = 0.0 if same else lower_bound(found, difference, tail, config.seed)
    against_words = name if name == CHAMPION_CHECK else f"{name} (version {rival.version})"
    sentence = f"{against_words}, {_change(value, low, config.margin)} (n={len(both.labels)}, {both.count} groups)"
    p_value = 0.0 if same else _chance(single, tail, config)
    chance = f"{against_words}, one that loses {config.margin:g} would look this good with a chance of {p_value:.2g}"
    return [
        Check(name, low >= -config.margin, low, -config.margin, sentence),
        _by_chance(f"{name}, by chance", p_value, tail, chance, both.count),
    ]


def best_champion_checks(
    ours: Judged, classes: Sequence[str], former: Sequence[Rival], tail: float, config: PromoteConfig
) -> list[Check]:
    """The challenger against every model that was champion before, so that small losses do not add up.

    None may be better by more than the margin. That is one claim of each, and all must be shown, so no error rate is
    divided among them (intersection-union test, Berger 1982, doi:10.1080/00401706.1982.10487790). Told are the checks
    against the one that came off best. Champions of other classes, or that share too few images, are left out.

    Args:
        ours: The challenger on its hold-out.
        classes: Class names in the order of its probabilities.
        former: Champions before the present one.
        tail: One-sided error rate of the bounds.
        config: Margin and least number of groups.
    """
    comparable = [rival for rival in former if list(rival.classes) == list(classes)
                  and against(ours, rival.predictions).count >= config.min_groups]  # fmt: skip
    found = [rival_checks(BEST_CHECK, ours, classes, rival, tail, config) for rival in comparable]
    if not found:
        return []
    return min(found, key=lambda checks: (all(check.passed for check in checks), checks[0].value))


def decision_figures(decision: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a `promotion.json` by the names under which they are logged: one list for every tracker.

    A check's name is written with underscores: `check.against_the_champion.value`, `.bound`, `.passed` (0 or 1).
    """
    figures = {"look": decision["look"]["number"], "tail": decision["look"]["tail"]}
    figures["promoted"] = float(decision["decision"] == "promoted")
    for check in decision["checks"]:
        name = f"check.{re.sub(r'[^a-z0-9]+', '_', check['name'].lower())}"
        figures |= {f"{name}.{key}": check[key] for key in ("value", "bound", "passed")}
    for key, value in (decision["tests"].get("mcnemar") or {}).items():
        figures[f"mcnemar.{key}"] = value
    for number, row in enumerate(decision["tests"].get("delong", [])):
        figures |= {f"delong.{number}.{key}": value for key, value in row.items() if key != "positive"}
    return {name: float(value) for name, value in figures.items() if value is not None}


def interval_from(values: Mapping[str, object]) -> Interval:
    """Interval as its fields stand in JSON."""
    return Interval(**values)  # type: ignore[arg-type]


def _chance(single: Tally, tail: float, config: PromoteConfig) -> float:
    return tilted_p_value(single, macro_f1_difference(single), -config.margin, tail, config.seed)


def _of_both(rows: Judged) -> Tally:
    assert rows.rival is not None
    said = [probabilities.argmax(axis=1) for probabilities in (rows.probabilities, rows.rival)]
    return tally(rows.labels, rows.groups, said, rows.probabilities.shape[1])


def _by_chance(name: str, p_value: float, tail: float, sentence: str, groups: int) -> Check:
    return Check(name, p_value <= tail, p_value, tail, f"{sentence}, to be at most {tail:.2g} ({groups} groups)")


def _other_classes(name: str, classes: Sequence[str], theirs: Sequence[str]) -> Check:
    agreeing = sum(ours == other for ours, other in zip(classes, theirs, strict=False))
    sentence = (
        f"the champion tells apart {', '.join(theirs)} and the challenger {', '.join(classes)}, in this order: they "
        "cannot be compared; begin a line of its own under another promote.model_name, or train the challenger on the "
        "champion's classes"
    )
    return Check(name, False, agreeing, max(len(classes), len(theirs)), sentence)


def _change(value: float, low: float, margin: float) -> str:
    return f"macro-F1 changes by {value:+.3f}, lower bound {low:+.3f}, to be at least {-margin:+g}"
