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
    """Value of the next labels by an inverse power law (Figueroa et al. 2012, doi:10.1186/1472-6947-12-8).

    The head learns from nested shares of the labelled groups and answers the groups that it did not see; its macro-F1
    is a line in one over the root of the labels. Three points cannot tell an exponent from the level that is reached in
    the end, so the exponent is that of most estimators. The interval resamples the groups that judge and the draws of
    the shares. It does not know that labels chosen by a policy may teach more, or less, than a share of those at hand.

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
    judges = known.drawn if len(np.unique(known.judging[known.drawn])) == classes else np.ones_like(known.drawn)
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
    steepness, f1 = _curves(np.concatenate([counts.total, drawn]), classes, np.mean(sizes, axis=0), draw)
    labels = len(known.labels)
    each = steepness / (2 * labels**1.5) / price_eur
    whole = steepness * (labels**-0.5 - (labels + asked) ** -0.5)
    (low, high), (gain_low, gain_high) = (np.quantile(values[1:], [TAIL, 1 - TAIL]) for values in (each, whole))
    return Value(
        float(f1[0]), float(each[0]), float(low), float(high), float(whole[0]), float(gain_low),
        float(gain_high), labels, counts.groups,
    )  # fmt: skip


def _curves(counts: Float, classes: int, sizes: Float, draw: np.random.Generator) -> tuple[Float, Float]:
    """Steepness of the curve and macro-F1 with all labels, each (resamples,), of counts (resamples, cells).

    All resamples but the first, which is the labels at hand, resample the repeats as well: another draw of the labels
    would have given another curve.
    """
    cells = classes * classes
    f1 = np.stack([f1_of(counts[:, start : start + cells], classes) for start in range(0, counts.shape[1], cells)])
    each = f1.reshape(REPEATS, len(SHARES), -1)
    chosen = draw.integers(0, REPEATS, (REPEATS, each.shape[2]))
    chosen[:, 0] = np.arange(REPEATS)
    means: Float = np.take_along_axis(each, chosen[:, None], axis=0).mean(axis=0)
    centred = sizes**-0.5 - (sizes**-0.5).mean()
    return -(centred @ means) / (centred @ centred), means[-1]
