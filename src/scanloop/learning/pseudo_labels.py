"""When a machine's label may count: calibrated confidence, the neighbours' majority, and proof that it helps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.calibration.scaling import probabilities_of
from scanloop.config import PseudoLabelConfig
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import Head, TunedHead, fit_head, tune_head
from scanloop.learning.neighbours import neighbour_vote
from scanloop.types import Float, Groups, Labels


@dataclass(frozen=True)
class Proposal:
    """What a head and the neighbours say of the pool.

    Attributes:
        probabilities: (n, classes), calibrated.
        labels: (n,) most probable class.
        neighbour_labels: (n,) majority of the nearest labelled images.
        neighbour_shares: (n,) share of that majority.
        accepted: (n,) whether both tests of the rule are passed.
    """

    probabilities: Float
    labels: Labels
    neighbour_labels: Labels
    neighbour_shares: Float
    accepted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """Supervised and semi-supervised heads on images that neither saw.

    Attributes:
        labels: (n,) true class indices.
        groups: (n,) groups.
        supervised: (repeats, n, classes) probabilities of the head on the labels alone.
        semi_supervised: (repeats, n, classes) the same with the pseudo-labels that the rule accepts.
        kind: "validation" or "cross_validation".
    """

    labels: Labels
    groups: Groups
    supervised: Float
    semi_supervised: Float
    kind: str


def propose(tuned: TunedHead, known: Known, pool: Pool, classes: int, config: PseudoLabelConfig) -> Proposal:
    """Apply the rule to a pool: confidence >= `min_confidence`, and the neighbours' majority says the same.

    Args:
        tuned: Head trained and calibrated on `known`.
        known: Labelled rows, the neighbours.
        pool: Rows to judge.
        classes: Number of classes.
        config: Thresholds.
    """
    probabilities = tuned.probabilities(pool.vectors)
    labels = probabilities.argmax(axis=1).astype(np.int64)
    neighbour_labels, shares = neighbour_vote(known.vectors, known.labels, pool.vectors, config.neighbours, classes)
    accepted = passes(probabilities, neighbour_labels, shares, config)
    return Proposal(probabilities, labels, neighbour_labels, shares, accepted)


def passes(
    probabilities: Float, neighbour_labels: Labels, shares: Float, config: PseudoLabelConfig
) -> npt.NDArray[np.bool_]:
    """The rule itself: whether each row, (n,), is sure enough of the class that its neighbours' majority names."""
    passed: npt.NDArray[np.bool_] = probabilities.max(axis=1) >= config.min_confidence
    passed &= neighbour_labels == probabilities.argmax(axis=1)
    passed &= shares > config.min_neighbour_share
    return passed


def fit_semi_supervised(tuned: TunedHead, known: Known, pool: Pool, proposal: Proposal, weight: float) -> Head:
    """Head on the labels and the accepted pseudo-labels; given labels keep their value and their full weight.

    Without an accepted pseudo-label it is the supervised head itself.
    """
    if not proposal.accepted.any():
        return tuned.head
    vectors = np.concatenate([known.vectors, pool.vectors[proposal.accepted]])
    labels = np.concatenate([known.labels, proposal.labels[proposal.accepted]])
    weights = np.concatenate([np.ones(len(known.labels)), np.full(int(proposal.accepted.sum()), weight)])
    return fit_head(vectors, labels, proposal.probabilities.shape[1], tuned.c, weights)


def trial_on_validation(known: Known, pool: Pool, validation: Known, classes: int, config: PseudoLabelConfig) -> Trial:
    """Both arms trained on the training part and tried on the validation part."""
    supervised, semi_supervised = _both_arms(known, pool, validation, classes, config, config.seed)
    return Trial(validation.labels, validation.groups, supervised[None], semi_supervised[None], "validation")


def trial_by_cross_validation(known: Known, pool: Pool, classes: int, config: PseudoLabelConfig) -> Trial:
    """Both arms by repeated group cross-validation over the randomly drawn labels.

    In each fold the rule is applied anew by a head that saw the fold's training rows alone, and pool images in a
    held-out group are left out, so that no held-out label reaches a pseudo-label.
    """
    plan = config.cross_validation
    cuts = group_folds(known.labels, known.groups, plan.folds, plan.repeats, plan.seed)
    arms = np.empty((2, plan.repeats, len(known.labels), classes))
    for cut in cuts:
        train, test = known.take(cut.train), known.take(cut.test)
        remaining = pool.without(test.groups)
        arms[:, cut.repeat, cut.test] = _both_arms(train, remaining, test, classes, config, cut.seed(config.seed))
    drawn = known.drawn
    return Trial(known.labels[drawn], known.groups[drawn], arms[0][:, drawn], arms[1][:, drawn], "cross_validation")


def _both_arms(
    train: Known, pool: Pool, test: Known, classes: int, config: PseudoLabelConfig, seed: int
) -> tuple[Float, Float]:
    tuned = tune_head(train, classes, config.cross_validation.folds, seed)
    proposal = propose(tuned, train, pool, classes, config)
    head = fit_semi_supervised(tuned, train, pool, proposal, config.weight)
    semi_supervised = probabilities_of(head.logits(test.vectors), tuned.temperature)
    return tuned.probabilities(test.vectors), semi_supervised
