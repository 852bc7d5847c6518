"""The promotion gate: each check decides on a confidence bound and explains itself in one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanloop.config import PromoteConfig
from scanloop.evaluation.comparison import Holdout, difference_interval
from scanloop.evaluation.intervals import Resampling
from scanloop.types import Float, Interval

HELD_OUT = ("test", "cross_validation")


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes:
        name: Short name.
        passed: Whether it holds.
        value: What was measured: a count, or a confidence bound.
        bound: What it is held against.
        sentence: Both in words.
    """

    name: str
    passed: bool
    value: float
    bound: float
    sentence: str


def hold_out_checks(f1: Interval, groups: int, gain: Interval | None, config: PromoteConfig) -> list[Check]:
    """What a model must reach on its own hold-out: enough groups, macro-F1, and no harm by pseudo-labels.

    Args:
        f1: Macro-F1 of the deployed arm.
        groups: Independent groups of the hold-out.
        gain: Macro-F1 of semi-supervised minus supervised, paired; None where no pseudo-label was used.
        config: Bounds.
    """
    enough = groups >= config.min_groups
    missing = f"{config.min_groups - groups} fewer than the {config.min_groups} that a decision needs"
    counted = f"the hold-out has {groups} independent groups, "
    counted += f"at least {config.min_groups}" if enough else missing
    reached = f"the lower bound of macro-F1 is {f1.low:.3f} (value {f1.value:.3f}, n={f1.n})"
    checks = [
        Check("hold-out groups", enough, groups, config.min_groups, counted),
        Check(
            "macro-F1", f1.low >= config.min_f1, f1.low, config.min_f1, f"{reached}, to be at least {config.min_f1:g}"
        ),
    ]
    if gain is not None:
        sentence = f"against supervised, {_change(gain, config.margin)}"
        checks.append(Check("pseudo-labels do no harm", gain.low >= -config.margin, gain.low, -config.margin, sentence))
    return checks


def champion_check(
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    classes: list[str],
    champion_classes: list[str],
    config: PromoteConfig,
) -> Check:
    """Challenger against champion on the hold-out images that both were measured on, paired by group.

    It does not hold where they know other classes, or the same in another order: nothing could be compared.

    Args:
        challenger: `predictions.parquet` of the challenger, with a column `group_id`.
        champion: `predictions.parquet` of the champion.
        classes: Class names in the order of the challenger's probabilities.
        champion_classes: Class names in the order of the champion's.
        config: Margin and least number of groups.
    """
    if classes != champion_classes:
        agreeing = sum(ours == theirs for ours, theirs in zip(classes, champion_classes, strict=False))
        sentence = (
            f"the champion tells apart {', '.join(champion_classes)} and the challenger {', '.join(classes)}, in this "
            "order: they cannot be compared; begin a line of its own under another promote.model_name, or train the "
            "challenger on the champion's classes"
        )
        bound = max(len(classes), len(champion_classes))
        return Check("against the champion", False, agreeing, bound, sentence)
    ours, theirs = (_held_out(frame) for frame in (challenger, champion))
    both = ours.merge(theirs[["slice_id", "probabilities"]], on="slice_id", suffixes=("", "_champion"))
    groups = both["group_id"].nunique()
    if groups < config.min_groups:
        sentence = (
            f"champion and challenger share {groups} hold-out groups; {config.min_groups} are needed to compare them"
        )
        return Check("against the champion", False, groups, config.min_groups, sentence)
    labels = np.array([classes.index(name) for name in both["given_label"]], dtype=np.int64)
    first, second = (_stack(both[column]) for column in ("probabilities", "probabilities_champion"))
    holdout = Holdout(labels, both["group_id"].to_numpy())
    gain = difference_interval("macro_f1", first, second, holdout, Resampling(seed=config.seed))
    sentence = f"against the champion, {_change(gain, config.margin)} (n={gain.n}, {gain.groups} groups)"
    return Check("against the champion", gain.low >= -config.margin, gain.low, -config.margin, sentence)


def interval_from(values: Mapping[str, object]) -> Interval:
    """Interval as its fields stand in JSON."""
    return Interval(**values)  # type: ignore[arg-type]


def _held_out(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["split"].isin(HELD_OUT) & frame["given_label"].notna()].drop_duplicates("slice_id")


def _stack(column: pd.Series) -> Float:
    return np.array(column.tolist(), dtype=np.float64)


def _change(gain: Interval, margin: float) -> str:
    return f"macro-F1 changes by {gain.value:+.3f}, lower bound {gain.low:+.3f}, to be at least {-margin:+g}"
