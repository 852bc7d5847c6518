"""Repeated stratified group cross-validation: a group is on one side of a fold, never on both."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from scanloop.calibration.calibrator import Calibrator
from scanloop.errors import TooFewLabelsError
from scanloop.types import Float, Groups, Labels


@dataclass(frozen=True)
class Fold:
    """One cut of the rows.

    Attributes:
        repeat: Number of the repetition, from 0.
        number: Number of the fold within the repetition, from 0.
        train: Indices to learn from.
        test: Indices to predict; no group of theirs is in `train`.
    """

    repeat: int
    number: int
    train: Labels
    test: Labels

    def seed(self, base: int) -> int:
        """Seed of what is drawn within this fold, another for each."""
        return base + 1009 * self.repeat + self.number


def group_folds(labels: Labels, groups: Groups, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Folds of repeated stratified group cross-validation; within a repetition each row is tested once.

    Fewer folds are cut where the rarest class has fewer groups.

    Raises:
        TooFewLabelsError: A class has fewer than two groups, or there is only one class.
    """
    per_class = [len(np.unique(groups[labels == label])) for label in np.unique(labels)]
    if len(per_class) < 2 or min(per_class) < 2:
        raise TooFewLabelsError(
            f"the labels hold {len(per_class)} class(es) with {min(per_class, default=0)} group(s) in the rarest; "
            "at least 2 classes with 2 groups each are needed: label more images"
        )
    count = min(folds, *per_class)
    cuts = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed + repeat)
        for number, (train, test) in enumerate(splitter.split(labels, labels, groups)):
            cuts.append(Fold(repeat, number, train, test))
    for cut in cuts:
        if len(np.unique(labels[cut.train])) < len(per_class):
            raise TooFewLabelsError(
                "a class stands in too few groups to be on both sides of a fold: label more images of it"
            )
    return cuts


def cross_fitted(
    logits: Float, cuts: list[Fold], judges: npt.NDArray[np.bool_], fit: Callable[[Fold, Labels], Calibrator]
) -> Float:
    """Out-of-fold logits, each mapped by a calibrator fitted on the other folds of its repetition.

    Args:
        logits: (repeats, n, classes) from models that never saw the row's group.
        cuts: The folds behind the logits.
        judges: (n,) rows that may choose a calibrator: those drawn at random.
        fit: From a fold, and the judges outside of it, to a calibrator.
    """
    mapped = logits.copy()
    for cut in cuts:
        others = judges.copy()
        others[cut.test] = False
        mapped[cut.repeat, cut.test] = fit(cut, np.flatnonzero(others)).logits(logits[cut.repeat, cut.test])
    return mapped
