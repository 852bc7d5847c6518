"""The hold-out gate: pseudo-labels count only where bounds, not point estimates, say that they do no harm."""

from dataclasses import dataclass

from scanloop.evaluation.comparison import Holdout, difference_interval, metric_interval
from scanloop.evaluation.intervals import Resampling
from scanloop.learning.trial import Trial
from scanloop.sections.pool import PseudoLabelConfig
from scanloop.types import Interval


@dataclass(frozen=True)
class Verdict:
    """What the gate decides.

    Attributes:
        passed: Whether both bounds hold: labels may be promoted.
        harmless: Whether that of the difference holds: the pool may teach.
        reason: Why, in words, with the figures.
        kind: Where the figures come from: "validation" or "cross_validation".
        supervised_macro_f1: Of the head on the labels alone.
        semi_supervised_macro_f1: Of the head that also learns from accepted pseudo-labels.
        difference: Semi-supervised minus supervised, paired.
        min_f1: Configured least lower bound.
        margin: Configured largest loss at the lower bound.
    """

    passed: bool
    harmless: bool
    reason: str
    kind: str
    supervised_macro_f1: Interval
    semi_supervised_macro_f1: Interval
    difference: Interval
    min_f1: float
    margin: float


def judge(trial: Trial, config: PseudoLabelConfig) -> Verdict:
    """Decide on the lower bounds of the semi-supervised macro-F1 and of its gain over supervised."""
    holdout, plan = Holdout(trial.labels, trial.groups), Resampling(seed=config.seed)
    supervised = metric_interval("macro_f1", trial.supervised, holdout, plan)
    semi = metric_interval("macro_f1", trial.semi_supervised, holdout, plan)
    gain = difference_interval("macro_f1", trial.semi_supervised, trial.supervised, holdout, plan)
    faults = []
    if semi.low < config.min_f1:
        faults.append(f"the lower bound of macro-F1 is {semi.low:.3f}, below {config.min_f1:g}")
    harmless = gain.low >= -config.margin
    if not harmless:
        faults.append(f"macro-F1 may fall by {-gain.low:.3f} against supervised, more than {config.margin:g}")
    figures = f"macro-F1 {semi.value:.3f} [{semi.low:.3f}, {semi.high:.3f}], n={semi.n}, {semi.groups} groups"
    reason = f"{'; '.join(faults) or 'both bounds hold'} ({figures})"
    return Verdict(not faults, harmless, reason, trial.kind, supervised, semi, gain, config.min_f1, config.margin)
