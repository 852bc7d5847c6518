"""Whether a score means drift, in a word and in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from scanloop.drift.profile import Profile, Proportion

LEAST_ROWS = 20
"""Fewer slices on either side carry no verdict."""

NAMES = {
    "psi": "population stability index",
    "ks": "p-value of the Kolmogorov-Smirnov test",
    "wasserstein": "Wasserstein distance",
    "jensenshannon": "Jensen-Shannon distance",
}

THRESHOLDS: Mapping[str, float] = {"psi": 0.2, "ks": 0.05, "wasserstein": 0.1, "jensenshannon": 0.1}
"""Where drift begins unless the configuration says otherwise.

Evidently's own but for PSI, whose rule of thumb calls a change small from 0.1, Evidently's threshold, and large from
0.2. A p-value finds the least change significant in a large pool: prefer a distance from a few thousand slices on.
"""

BASES: Mapping[str, str] = {
    "test": "the test split",
    "cross_validation": "the labelled slices, out of fold in one round of cross-validation",
}
"""What the reference is made of, by the kind of hold-out."""


@dataclass(frozen=True)
class Verdict:
    """The judgement of one comparison.

    Attributes:
        drifted: None where too few slices allow no answer.
        words: The judgement with its figures.
    """

    drifted: bool | None
    words: str


def too_few(reference: Profile, current: Profile) -> str | None:
    """Why the two sides cannot be compared, or None if they can."""
    if min(reference.n, current.n) >= LEAST_ROWS:
        return None
    return (
        f"Too few slices to tell: {reference.n} in the reference and {current.n} now, "
        f"where at least {LEAST_ROWS} of each are needed."
    )


def basis_words(holdout: str, deployed_arm: str) -> str:
    """Whose confidence is compared, and on which slices.

    Args:
        holdout: "test" or "cross_validation".
        deployed_arm: "supervised" or "semi_supervised".
    """
    words = "Compared is the calibrated confidence of the head that proposes pseudo-labels: "
    words += f"on {BASES[holdout]}, and on the pool, of which it learnt from no slice."
    if deployed_arm == "supervised":
        return words
    return (
        f"{words} The deployed model learnt from the promoted slices and is surer of them, and the pool without them "
        "is harder than the hold-out; either would look like drift."
    )


def served_basis(holdout: str) -> str:
    """Whose confidence is compared where samples of what was served are, and on which images.

    Args:
        holdout: "test" or "cross_validation".
    """
    words = (
        "Compared is the calibrated confidence of the model that is served: on what it was sent, equal images once, "
    )
    if holdout == "test":
        return f"{words}and on the test split."
    return (
        f"{words}and on the labelled slices, by models that never saw their group. Those are means of several models, "
        "which are less sure than one; a test split would say more."
    )


def judge(method: str, score: float, threshold: float, chance: float | None) -> Verdict:
    """Verdict on a score: drift where it passes the threshold and what chance alone gives at these sizes.

    Args:
        method: "psi", "ks", "wasserstein" or "jensenshannon".
        score: Distance, or p-value for "ks".
        threshold: Drift at or above it; at or below it for "ks".
        chance: Score that chance exceeds in one of twenty cases; None for "ks", whose p-value speaks of chance itself.
    """
    found = f"{NAMES[method]} {score:.3g}, threshold {threshold:.3g}"
    if chance is None:
        drifted = score <= threshold
        return Verdict(drifted, f"The confidence has {'' if drifted else 'not '}drifted: {found}.")
    if score < threshold:
        return Verdict(False, f"The confidence has not drifted: {found}.")
    if score <= chance:
        return Verdict(False, f"No drift can be shown: {found}, but chance alone reaches {chance:.3g} at these sizes.")
    return Verdict(True, f"The confidence has drifted: {found}; chance alone reaches {chance:.3g} at these sizes.")


def prevalence_changed(reference: Proportion | None, current: Proportion | None) -> bool | None:
    """Whether the intervals of the two shares of positives lie apart; None where a side has no slices."""
    if reference is None or current is None:
        return None
    return reference.high < current.low or current.high < reference.low


def prevalence_words(reference: Proportion | None, current: Proportion | None) -> str:
    """The change of the share of positives in one sentence; empty where a side has no slices."""
    if reference is None or current is None:
        return ""
    change = "changed" if prevalence_changed(reference, current) else "shows no clear change"
    return f"The share predicted positive {change}: {_percent(reference)} in the reference, {_percent(current)} now."


def _percent(share: Proportion) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}, n = {share.n})"
