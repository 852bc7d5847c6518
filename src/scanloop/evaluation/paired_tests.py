"""McNemar's and DeLong's tests of two models on one hold-out: they stand beside the gate's bounds, and decide nothing.

McNemar's test is exact on independent images, so one image of each group is drawn. DeLong's covariance has a clustered
form that uses every image (Obuchowski 1997), which is DeLong's own where each group is one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest, norm, rankdata

from scanloop.evaluation.judged import Judged
from scanloop.types import Float, Groups, Labels


@dataclass(frozen=True)
class McNemar:
    """Which of two models is right where one alone is.

    Attributes:
        only_challenger: Images that the challenger alone gets right.
        only_champion: Images that the champion alone gets right.
        n: Images, one a group.
        p_value: Two-sided; 1 where they are right on the same images.
    """

    only_challenger: int
    only_champion: int
    n: int
    p_value: float


@dataclass(frozen=True)
class DeLong:
    """How two models' AUROCs of one class differ.

    Attributes:
        positive: The class, against the rest.
        challenger: AUROC of the challenger.
        champion: AUROC of the champion.
        difference: First minus second.
        standard_error: Of the difference, with groups as units.
        low: Lower bound of the difference.
        high: Upper bound of the difference.
        p_value: Two-sided; 1 where nothing differs, None where the difference has no variance and is not 0.
        n: Images.
        groups: Independent groups.
    """

    positive: str
    challenger: float
    champion: float
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float | None
    n: int
    groups: int


def mcnemar(judged: Judged, seed: int) -> McNemar:
    """McNemar's test (1947, doi:10.1007/BF02295996), exact: a fair coin tossed once for each discordant image.

    Args:
        judged: Both models on the hold-out.
        seed: Seed that draws one image of each group.
    """
    one = judged.one_a_group(seed)
    assert one.rival is not None
    ours, theirs = (said.argmax(axis=1) == one.labels for said in (one.probabilities, one.rival))
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, len(one.labels), p_value)


def delong(judged: Judged, classes: Sequence[str], confidence: float) -> list[DeLong]:
    """DeLong's test (1988, doi:10.2307/2531595) of each class that some images have and some have not.

    With two classes that is one, the last: the other's area is the same.
    """
    assert judged.rival is not None
    shown = range(len(classes)) if len(classes) > 2 else [1]
    found = []
    for label in shown:
        positive = judged.labels == label
        if positive.any() and not positive.all():
            scores = np.stack([judged.probabilities[:, label], judged.rival[:, label]])
            found.append(_of_class(scores, positive, judged.groups, classes[label], confidence))
    return found


def clustered_areas(scores: Float, positive: Labels, groups: Groups) -> tuple[Float, Float]:
    """AUROCs (models,) and their covariance (models, models) over groups.

    Placements come from midranks (Sun and Xu 2014, doi:10.1109/LSP.2014.2337313), so time grows as n log n. Their sums
    within a group are the units (Obuchowski 1997, doi:10.2307/2533958): a group with images of both kinds counts twice.

    Args:
        scores: (models, n) scores of the positive class.
        positive: (n,) whether an image is of the class; both kinds occur.
        groups: (n,) group of each image.
    """
    hits, misses = int(positive.sum()), int((~positive).sum())
    _, index = np.unique(groups, return_inverse=True)
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / misses
    below = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / hits
    areas: Float = above.mean(axis=1)
    count = int(index.max()) + 1
    parts = []
    for placed, rows, total in ((above, positive, hits), (below, ~positive, misses)):
        sums = np.zeros((len(scores), count))
        np.add.at(sums.T, index[rows], ((placed - areas[:, None]) / total).T)
        units = len(np.unique(index[rows]))
        parts.append((sums, units / max(units - 1, 1)))
    (first, of_first), (second, of_second) = parts
    cross = first @ second.T * (count / max(count - 1, 1))
    covariance: Float = of_first * first @ first.T + of_second * second @ second.T + cross + cross.T
    return areas, covariance


def _of_class(scores: Float, positive: Labels, groups: Groups, name: str, confidence: float) -> DeLong:
    areas, covariance = clustered_areas(scores, positive, groups)
    difference = float(areas[0] - areas[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    reach = float(ndtri((1 + confidence) / 2)) * error
    p_value: float | None = 1.0 if abs(difference) < 1e-12 else None
    if error > 1e-12:
        p_value = float(2 * norm.sf(abs(difference) / error))
    return DeLong(
        name, float(areas[0]), float(areas[1]), difference, error, difference - reach, difference + reach, p_value,
        len(positive), len(np.unique(groups)),
    )  # fmt: skip
