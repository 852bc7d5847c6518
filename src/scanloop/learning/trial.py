"""Supervised training against a recipe for the pool, on images that neither saw."""

from dataclasses import dataclass

import numpy as np

from scanloop.calibration.scaling import probabilities_of
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import tune_head
from scanloop.learning.semisupervised.method import fit_on_targets
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.sections.pool import CrossValidation
from scanloop.types import Float, Groups, Labels


@dataclass(frozen=True)
class Trial:
    """Supervised and semi-supervised heads on images that neither saw.

    Attributes:
        labels: (n,) true class indices.
        groups: (n,) groups.
        supervised: (repeats, n, classes) probabilities of the head on the labels alone.
        semi_supervised: (repeats, n, classes) the same of the head that the recipe makes.
        kind: "validation" or "cross_validation".
    """

    labels: Labels
    groups: Groups
    supervised: Float
    semi_supervised: Float
    kind: str


def trial_on_validation(
    known: Known, pool: Pool, validation: Known, recipe: Recipe, plan: CrossValidation, seed: int
) -> Trial:
    """Both arms trained on the training part and tried on the validation part."""
    supervised, semi_supervised = _both_arms(known, pool, validation, recipe, plan, seed)
    return Trial(validation.labels, validation.groups, supervised[None], semi_supervised[None], "validation")


def trial_by_cross_validation(known: Known, pool: Pool, recipe: Recipe, plan: CrossValidation, seed: int) -> Trial:
    """Both arms by repeated group cross-validation over the randomly drawn labels.

    In each fold the recipe is followed anew by a head that saw the fold's training rows alone, and pool images in a
    held-out group are left out, so that no held-out label reaches a pseudo-label.
    """
    cuts = group_folds(known.labels, known.groups, plan.folds, plan.repeats, plan.seed)
    arms = np.empty((2, plan.repeats, len(known.labels), len(np.unique(known.labels))))
    for cut in cuts:
        train, test = known.take(cut.train), known.take(cut.test)
        remaining = pool.without(test.groups)
        arms[:, cut.repeat, cut.test] = _both_arms(train, remaining, test, recipe, plan, cut.seed(seed))
    drawn = known.drawn
    return Trial(known.judging[drawn], known.groups[drawn], arms[0][:, drawn], arms[1][:, drawn], "cross_validation")


def _both_arms(
    train: Known, pool: Pool, test: Known, recipe: Recipe, plan: CrossValidation, seed: int
) -> tuple[Float, Float]:
    tuned = tune_head(train, len(np.unique(train.labels)), plan.folds, seed)
    head = fit_on_targets(tuned, train, pool, recipe.targets(tuned, train, pool))
    semi_supervised = probabilities_of(head.logits(test.vectors), tuned.temperature)
    return tuned.probabilities(test.vectors), semi_supervised
