"""Which calibrator a model gets: chosen, fitted and judged on out-of-fold logits, a fold never by what fitted it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.maps import FITS, MAPS
from scanloop.evaluation.calibration import honesty, log_losses
from scanloop.evaluation.metrics import measure
from scanloop.learning.choosing import choose, paired_gain
from scanloop.learning.cross_validation import Fold, cross_fitted
from scanloop.types import Float, Groups, Labels

GROUPS_OF_ISOTONIC = 200
"""Fewer independent groups do not hold an isotonic curve in check."""


@dataclass(frozen=True)
class OutOfFold:
    """What models say of rows whose groups they never saw.

    Attributes:
        logits: (repeats, n, classes), each divided by the temperature that the fold's own head chose for itself. Folds
            choose other penalties than the final model, and with them other scales: without that division, their
            mixture says little of the final model's scale.
        temperatures: (repeats, n) these temperatures.
        labels: (n,) class indices.
        groups: (n,) groups.
        judges: (n,) rows drawn at random: no others fit, choose or judge.
        cuts: The folds.
    """

    logits: Float
    temperatures: Float
    labels: Labels
    groups: Groups
    judges: npt.NDArray[np.bool_]
    cuts: list[Fold]


@dataclass(frozen=True)
class Calibrated:
    """The calibrator that is kept, and what speaks for it.

    Attributes:
        calibrator: Fitted on every judge, for logits in units of the head's own temperature.
        logits: (repeats, n, classes) calibrated ones of every row; choice and fit of each fold from the others.
        candidates: Measures of each method out of fold, "none" among them: the figures before and after.
        gains: Of each method over the temperature: how much lower its out-of-fold log-loss is, with the standard error
            by group.
    """

    calibrator: Calibrator
    logits: Float
    candidates: dict[str, dict[str, float]]
    gains: dict[str, dict[str, float]]


def calibrate(found: OutOfFold, method: str = "auto", bins: int = 10, seed: int = 0) -> Calibrated:
    """Choose, fit and judge a calibrator.

    "auto" goes from the simplest map to the richest and takes the next one where its cross-fitted log-loss is lower by
    more than one standard error of the paired difference between groups. The logits returned are nested: for each fold
    the choice itself is made on the other folds alone. The measures of single candidates are not of the choice.

    Args:
        found: Out-of-fold logits.
        method: A name in `FITS`, or "auto".
        bins: Of the calibration errors.
        seed: Of the draws behind the noise floor.
    """
    judges = found.judges
    truth, groups = found.labels[judges], found.groups[judges]
    few = len(np.unique(groups)) < GROUPS_OF_ISOTONIC
    names = [name for name in MAPS if name == method or not (few and name == "isotonic")]
    tried = {name: cross_fitted(found.logits, found.cuts, judges, _by_name(found, name)) for name in names}
    tried["none"] = found.logits * found.temperatures[:, :, None]
    losses = {name: log_losses(logits[:, judges], truth).mean(axis=0) for name, logits in tried.items()}
    if method == "auto":
        chosen = choose({name: losses[name] for name in names}, groups)
        logits = cross_fitted(found.logits, found.cuts, judges, _nested(found, names))
    else:
        chosen, logits = method, tried[method]
    stacked = found.logits[:, judges].reshape(-1, found.logits.shape[2])
    calibrator = FITS[chosen](stacked, np.tile(truth, len(found.logits)))
    candidates = {name: _measures(values[:, judges], truth, bins, seed) for name, values in tried.items()}
    return Calibrated(calibrator, logits, candidates, {name: _gain(losses, name, groups) for name in tried})


def _by_name(found: OutOfFold, name: str) -> Callable[[Fold, Labels], Calibrator]:
    return lambda cut, rows: FITS[name](found.logits[cut.repeat, rows], found.labels[rows])


def _nested(found: OutOfFold, names: Sequence[str]) -> Callable[[Fold, Labels], Calibrator]:
    """For a fold: choose among the methods by cross-fitting over the other folds, then fit on all of these."""
    fold_of = np.empty(found.temperatures.shape, dtype=np.int64)
    for cut in found.cuts:
        fold_of[cut.repeat, cut.test] = cut.number

    def fit(cut: Fold, rows: Labels) -> Calibrator:
        logits, labels, folds = found.logits[cut.repeat, rows], found.labels[rows], fold_of[cut.repeat, rows]
        if len(np.unique(folds)) < 2:  # nothing is left to judge a choice
            return FITS[names[0]](logits, labels)
        losses = {name: np.empty(len(rows)) for name in names}
        for fold in np.unique(folds):
            inside, outside = folds == fold, folds != fold
            for name in names:
                mapped = FITS[name](logits[outside], labels[outside]).logits(logits[inside])
                losses[name][inside] = log_losses(mapped, labels[inside])
        return FITS[choose(losses, found.groups[rows])](logits, labels)

    return fit


def _gain(losses: Mapping[str, Float], name: str, groups: Groups) -> dict[str, float]:
    gain, error = paired_gain(losses["temperature"], losses[name], groups)
    return {"gain": gain, "standard_error": error}


def _measures(logits: Float, labels: Labels, bins: int, seed: int) -> dict[str, float]:
    repeats = softmax(logits, axis=-1)
    plain = measure(repeats, labels, bins)
    return {name: plain[name] for name in ("ece", "brier")} | honesty(repeats, labels, bins, seed)
