"""The rule by which a machine's label may count: confidence, the neighbours, the prototypes, and nothing strange."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import TunedHead
from scanloop.learning.neighbours import anomaly, nearest_prototype, neighbour_vote, usual_anomaly
from scanloop.sections.pool import PseudoLabelConfig
from scanloop.types import Float, Labels

UNSURE, DISAGREEMENT, OTHER_PROTOTYPE, STRANGE = (
    "low confidence", "neighbours disagree", "nearer to another class's mean", "unlike the labelled images",
)  # fmt: skip
"""Why the rule refuses an image; the first test that fails is named."""


@dataclass(frozen=True)
class Proposal:
    """What a head and the neighbours say of the pool.

    Attributes:
        probabilities: (n, classes), calibrated.
        labels: (n,) most probable class.
        neighbour_labels: (n,) majority of the nearest labelled images.
        neighbour_shares: (n,) share of that majority.
        anomaly: (n,) angular distance to the nearest labelled image, 0..2.
        refusals: (n,) why the rule refuses an image, "" where it does not.
    """

    probabilities: Float
    labels: Labels
    neighbour_labels: Labels
    neighbour_shares: Float
    anomaly: Float
    refusals: npt.NDArray[np.object_]

    @property
    def confidence(self) -> Float:
        """Calibrated probability (n,) of the most probable class."""
        highest: Float = self.probabilities.max(axis=1)
        return highest

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Whether the rule lets each image (n,) through."""
        passed: npt.NDArray[np.bool_] = self.refusals == ""
        return passed

    def above(self, thresholds: Float) -> npt.NDArray[np.bool_]:
        """Images (n,) that the rule lets through with at least the confidence asked for their class, (classes,)."""
        passed: npt.NDArray[np.bool_] = self.accepted & (self.confidence >= thresholds[self.labels])
        return passed


def propose(tuned: TunedHead, known: Known, pool: Pool, classes: int, config: PseudoLabelConfig) -> Proposal:
    """Apply the rule to a pool: sure, the neighbours' majority and the nearest class mean agree, and nothing strange.

    Args:
        tuned: Head trained and calibrated on `known`.
        known: Labelled rows, the neighbours.
        pool: Rows to judge.
        classes: Number of classes.
        config: Thresholds.
    """
    probabilities = tuned.probabilities(pool.vectors)
    labels = probabilities.argmax(axis=1).astype(np.int64)
    given, asked = tuned.seen(known.vectors), tuned.seen(pool.vectors)
    neighbour_labels, shares = neighbour_vote(given, known.labels, asked, config.neighbours, classes)
    prototypes = nearest_prototype(given, known.labels, asked, classes)
    distances = anomaly(given, asked)
    unsure = probabilities.max(axis=1) < config.min_confidence
    strange = distances > usual_anomaly(given, known.groups, config.max_anomaly)
    agrees = passes(probabilities, neighbour_labels, shares, config)
    refusals = np.select(
        [unsure, ~agrees, prototypes != labels, strange], [UNSURE, DISAGREEMENT, OTHER_PROTOTYPE, STRANGE], ""
    ).astype(object)
    return Proposal(probabilities, labels, neighbour_labels, shares, distances, refusals)


def passes(
    probabilities: Float, neighbour_labels: Labels, shares: Float, config: PseudoLabelConfig
) -> npt.NDArray[np.bool_]:
    """The core of the rule: whether each row, (n,), is sure enough of the class that its neighbours' majority names."""
    passed: npt.NDArray[np.bool_] = probabilities.max(axis=1) >= config.min_confidence
    passed &= neighbour_labels == probabilities.argmax(axis=1)
    passed &= shares > config.min_neighbour_share
    return passed
