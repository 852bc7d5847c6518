"""What the next label is worth: macro-F1 for a euro, read off the curve of the labels at hand."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanloop.evaluation.learning_curve import nested
from scanloop.evaluation.tallies import f1_of, tally
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known
from scanloop.learning.heads import fit_head
from scanloop.types import Float

SHARES = (0.35, 0.6, 1.0)
"""Shares of the labelled groups that are learnt from."""

FOLDS, REPEATS, RESAMPLES = 5, 4, 1000
TAIL = 0.05
FEWEST = 5
"""Labelled groups of each class that a curve needs."""
LEAST_ERROR = 1e-3
"""An error below this counts as this: its logarithm is taken."""


@dataclass(frozen=True)
class Value:
    """What further labels are worth by the curve so far.

    Attributes:
        macro_f1: Out-of-fold macro-F1 with all labels, 0..1.
        f1_per_eur: Gain of macro-F1 (0..1) by the next euro of labels.
        low: Lower 95 % bound of it, one-sided.
        high: Upper 95 % bound of it, one-sided.
        gain: Gain by all labels that are asked for.
        gain_low: Lower bound of that.
        gain_high: Upper bound of that.
        labels: Labels at hand.
        judged: Of these, the groups drawn at random, on which macro-F1 is measured.
    """

    macro_f1: float
    f1_per_eur: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    labels: int
    judged: int

    def worth(self, least_f1_per_eur: float) -> dict[str, Any]:
        """Whether to go on: "stop" where even the upper bound is below the least value of a euro."""
        stop = least_f1_per_eur > 0 and self.high < least_f1_per_eur
        brings = f"the next euro brings {100 * self.f1_per_eur:+.3f} points of macro-F1"
        bounds = f"90 % interval {100 * self.low:+.3f} to {100 * self.high:+.3f}"
        least = f"{100 * least_f1_per_eur:.3f} are asked for"
        return {"verdict": "stop" if stop else "go on", "why": f"{brings} ({bounds}); {least}"}


def value_of_labels(known: Known, classes: int, c: float, price_eur: float, asked: int, seed: int) -> Value | None:
    """Value of the next labels: an error that falls as a power of the labels (Hestness et al. 2017, arXiv:1712.00409).

    The head learns from nested shares of the labelled groups and answers the groups that it did not see; the logarithm
    of its error against that of its labels is a line. The interval resamples the groups that judge. It does not know
    that labels chosen by a policy may be worth more than such a share of the labels at hand, nor that a curve may bend.

    Args:
        known: Labelled rows; those drawn at random judge, all of them where these lack a class.
        classes: Number of classes.
        c: Inverse penalty of the head.
        price_eur: Of a label.
        asked: Labels that are about to be bought.
        seed: Of folds, shares and resamples.

    Returns:
        None with fewer than five labelled groups of a class.
    """
    if min(len(np.unique(known.groups[known.labels == label])) for label in range(classes)) < FEWEST:
        return None
    judges = known.drawn if len(np.unique(known.labels[known.drawn])) == classes else np.ones_like(known.drawn)
    predicted = np.zeros((REPEATS, len(SHARES), len(known.labels)), dtype=np.int64)
    sizes: list[list[int]] = []
    for cut in group_folds(known.labels, known.groups, FOLDS, REPEATS, seed):
        parts = [nested(known.labels[cut.train], known.groups[cut.train], share, seed + cut.repeat) for share in SHARES]
        sizes.append([len(part) for part in parts])
        for place, part in enumerate(parts):
            rows = cut.train[part]
            head = fit_head(known.vectors[rows], known.labels[rows], classes, c)
            predicted[cut.repeat, place, cut.test] = head.logits(known.vectors[cut.test]).argmax(axis=1)
    flat = predicted.reshape(REPEATS * len(SHARES), -1)[:, judges]
    counts = tally(known.judging[judges], known.groups[judges], list(flat), classes)
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(counts.groups, counts.times / counts.groups, size=RESAMPLES) @ counts.kinds
    exponents, errors = _lines(np.concatenate([counts.total, drawn]), classes, np.log(np.mean(sizes, axis=0)))
    labels = len(known.labels)
    each = errors * exponents / labels / price_eur
    whole = errors * (1 - (1 + asked / labels) ** -exponents)
    (low, high), (gain_low, gain_high) = (np.quantile(values[1:], [TAIL, 1 - TAIL]) for values in (each, whole))
    return Value(
        float(1 - errors[0]), float(each[0]), float(low), float(high), float(whole[0]), float(gain_low),
        float(gain_high), labels, counts.groups,
    )  # fmt: skip


def _lines(counts: Float, classes: int, sizes: Float) -> tuple[Float, Float]:
    """Exponent of the power law and error with all labels, each (resamples,), of counts (resamples, cells)."""
    cells = classes * classes
    f1 = np.stack([f1_of(counts[:, start : start + cells], classes) for start in range(0, counts.shape[1], cells)])
    errors = np.maximum(1 - f1.reshape(REPEATS, len(SHARES), -1).mean(axis=0), LEAST_ERROR)
    centred = sizes - sizes.mean()
    exponents = -(centred @ np.log(errors)) / (centred @ centred)
    return exponents, errors[-1]
