"""Which of a machine's labels may count as labels: those that an audit certifies, or none."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.learning.certificate import Audited, Certificate, certify, to_be_bought
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import TunedHead
from scanloop.learning.pseudo_labels import Proposal, propose
from scanloop.sections.pool import PseudoLabelConfig
from scanloop.types import Float, Groups

CERTIFIED, REFUSED, UNCERTIFIED = "certified", "refused", "uncertified"


@dataclass(frozen=True)
class Promotion:
    """What may be promoted.

    Attributes:
        status: "certified", "refused", or "uncertified" where the configuration asks for promotion without proof.
        reason: Why, in words, with the figures; a refusal says what is missing.
        thresholds: Least confidence by class; None promotes none.
        certificate: What the audit proves.
        missing_labels: Labels of images drawn at random that would be needed besides, were the errors to stay what they
            are; 0 where something is certified, None where no number of them would do.
    """

    status: str
    reason: str
    thresholds: tuple[float, ...] | None
    certificate: Certificate
    missing_labels: int | None


def decide(
    tuned: TunedHead, known: Known, audit: Known, proposal: Proposal, pool: Pool, config: PseudoLabelConfig
) -> Promotion:
    """Certify the rule's labels by the audit, of which the head must have learnt nothing.

    Args:
        tuned: Head tuned on `known`.
        known: Labelled rows without the audit's.
        audit: Rows drawn at random from the pool; of a group only the first counts.
        proposal: What the rule says of the pool.
        pool: The pool.
        config: Rule, precision and delta.
    """
    classes = len(tuned.head.bias)
    _, first = np.unique(audit.groups, return_index=True)
    drawn = audit.take(np.sort(first))
    told = propose(tuned, known, Pool(drawn.slice_ids, drawn.vectors, drawn.groups), classes, config)
    audited = Audited(told.confidence, told.accepted, told.labels, told.labels == drawn.labels)
    certificate = certify(audited, classes, config.precision, config.delta, config.min_confidence)
    thresholds = certificate.thresholds(classes)
    candidates = len(np.unique(pool.groups[proposal.accepted]))
    missing = to_be_bought(certificate.missing, candidates, len(np.unique(pool.groups)))
    if config.uncertified:
        lowest = (config.min_confidence,) * classes
        return Promotion(UNCERTIFIED, "promoted by the rule alone, as configured", lowest, certificate, missing)
    if np.isfinite(thresholds).any():
        return Promotion(CERTIFIED, _words(certificate), tuple(thresholds), certificate, 0)
    return Promotion(REFUSED, _refusal(certificate, missing), None, certificate, missing)


def group_share(mask: npt.NDArray[np.bool_], groups: Groups) -> Float:
    """Weight (n,) of each image under a mask where its whole group, masked or not, counts once, as in an audit."""
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    weight: Float = mask / size[group]
    return weight


def _words(certificate: Certificate) -> str:
    proven = [claim for claim in certificate.claims if claim.threshold is not None]
    figures = ", ".join(
        f"{claim.audited} audited with {claim.errors} wrong from a confidence of {claim.threshold:g}"
        for claim in proven
    )
    return (
        f"at least {certificate.precision:.0%} of the promoted labels are right, each group counting once, with a "
        f"probability of at least {1 - certificate.delta:.0%}: {figures}"
    )


def _refusal(certificate: Certificate, missing: int | None) -> str:
    claim = min(certificate.claims, key=lambda one: one.missing)
    if missing is None:
        return "nothing in the pool passes the rule, so there is nothing to certify"
    return (
        f"no certificate: {claim.audited} audited images pass the rule, {claim.errors} of them wrong; label about "
        f"{missing} more images drawn at random (acquire.audit) to prove {certificate.precision:.0%}"
    )
