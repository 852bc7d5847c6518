"""A certificate for machines' labels: the share that is right, bounded by labels of images drawn at random.

Learn then test (Angelopoulos et al. 2021, arXiv:2110.01052): each threshold of confidence is a hypothesis "of the
images above it, fewer than `precision` are right". Its exact binomial p-value comes from the audited images above it,
one a group. Thresholds are tested in a fixed order, the highest first, until one is not rejected, so that the chance of
certifying any false one is at most delta, whatever the number of thresholds (fixed-sequence testing, Maurer et al.
1995).

What makes it valid: the audited images were drawn at random from the pool, and nothing that gives confidence or label
here has learnt from their answers.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from scanloop.evaluation.intervals import exact_bounds
from scanloop.types import Float, Labels

THRESHOLDS = (0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Confidences that are tested, in this order; those below the rule's least confidence add nothing."""


@dataclass(frozen=True)
class Audited:
    """What the rule says of the audited images, and whether it is right.

    Attributes:
        confidence: (n,) calibrated confidence.
        accepted: (n,) whether the rule's other tests are passed.
        predicted: (n,) class indices.
        right: (n,) whether the expert says the same.
    """

    confidence: Float
    accepted: npt.NDArray[np.bool_]
    predicted: Labels
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Claim:
    """What the audit proves of the machine's labels of one class, or of all together.

    Attributes:
        scope: Class index; -1 is all classes together.
        threshold: Least confidence that is certified; None where nothing is.
        audited: Audited images that passed the rule, at the threshold, or at the rule's least confidence without one.
        errors: Of these, wrong ones.
        precision_low: Lower Clopper-Pearson bound of the share that is right among them, at 1 - delta.
        delta: Chance that the claim is false, at most.
        missing: Further audited images among the rule's that would be needed, were the errors to stay these; 0 where
            something is certified.
    """

    scope: int
    threshold: float | None
    audited: int
    errors: int
    precision_low: float
    delta: float
    missing: int


@dataclass(frozen=True)
class Certificate:
    """Claims about disjoint parts of the pool that hold together, with probability of at least 1 - delta.

    Attributes:
        precision: Least share of right labels that was asked for.
        delta: Chance that any claim is false, at most.
        claims: One for each class where the audit suffices for that, else one for all.
        audited: Images audited, one a group, passed by the rule or not.
    """

    precision: float
    delta: float
    claims: tuple[Claim, ...]
    audited: int

    def thresholds(self, classes: int) -> Float:
        """Least certified confidence (classes,) by predicted class; infinite where nothing is certified."""
        found = np.full(classes, np.inf)
        for claim in self.claims:
            if claim.threshold is not None:
                found[slice(None) if claim.scope < 0 else claim.scope] = claim.threshold
        return found

    @property
    def missing(self) -> int:
        """Further audited images among the rule's candidates that the nearest claim lacks; 0 where one is certified."""
        if any(claim.threshold is not None for claim in self.claims):
            return 0
        return min(claim.missing for claim in self.claims)


def audits_needed(errors: int, precision: float, delta: float) -> int:
    """Least audited images, so many of them wrong, that prove a precision.

    >>> audits_needed(0, 0.95, 0.05), audits_needed(1, 0.95, 0.05)
    (59, 93)
    """
    low, high = errors, 1
    while binom.cdf(errors, high, 1 - precision) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binom.cdf(errors, middle, 1 - precision) > delta else (low, middle)
    return high


def precision_bound(right: int, audited: int, delta: float) -> float:
    """Lower bound of a share, at 1 - delta, where `right` of `audited` draws were right (Clopper and Pearson 1934)."""
    return exact_bounds(right, audited, delta)[0]


def certify(audit: Audited, classes: int, precision: float, delta: float, least: float) -> Certificate:
    """Test thresholds of confidence, for each class where each has enough audited images, else for all together.

    Which of the two is decided by counts of predicted classes, without a look at what is right.

    Args:
        audit: Images drawn at random from the pool, one a group.
        classes: Number of classes.
        precision: Least share of right labels, below 1.
        delta: Chance of a false certificate, at most, in 0..1.
        least: Least confidence that the rule asks for.
    """
    by_class = [audit.accepted & (audit.confidence >= least) & (audit.predicted == label) for label in range(classes)]
    enough = audits_needed(0, precision, delta / classes)
    split = all(int(passed.sum()) >= enough for passed in by_class)
    scopes = range(classes) if split else (-1,)
    level = delta / classes if split else delta
    claims = tuple(_claim(audit, scope, precision, level, least) for scope in scopes)
    return Certificate(precision, delta, claims, len(audit.right))


def _claim(audit: Audited, scope: int, precision: float, delta: float, least: float) -> Claim:
    """Thresholds in the fixed order; those above which too few were audited for any proof are passed over."""
    within = audit.accepted if scope < 0 else audit.accepted & (audit.predicted == scope)
    enough, certified = audits_needed(0, precision, delta), None
    for threshold in (*(one for one in THRESHOLDS if one > least), least):
        passed = within & (audit.confidence >= threshold)
        count, errors = int(passed.sum()), int((passed & ~audit.right).sum())
        if count < enough:
            continue
        if binom.cdf(errors, count, 1 - precision) > delta:
            break
        certified = threshold
    passed = within & (audit.confidence >= (least if certified is None else certified))
    count, errors = int(passed.sum()), int((passed & ~audit.right).sum())
    missing = 0 if certified is not None else max(1, audits_needed(errors, precision, delta) - count)
    return Claim(scope, certified, count, errors, precision_bound(count - errors, count, delta), delta, missing)


def to_be_bought(missing: int, candidates: int, pool: int) -> int | None:
    """Labels to buy of images drawn at random from a pool of which so many pass the rule; None where none does."""
    return ceil(missing * pool / candidates) if candidates else None
