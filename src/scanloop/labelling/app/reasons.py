"""Why an image was chosen, in kinds that the page has words for."""

import re
from dataclasses import dataclass

_KINDS = (
    ("chance", re.compile(r"^drawn at random")),
    ("recheck", re.compile(r"^chosen to check the labels")),
    ("unsure", re.compile(r"uncertainty (?P<share>[01]\.\d+) of 1")),
)
UNSURE = 0.5
"""Uncertainty from which on it is what people are told."""


@dataclass(frozen=True)
class Reason:
    """Why an image was chosen.

    Attributes:
        kind: Key of the page's text: "chance", "recheck", "unsure", "spread"; "other" where the queue's words must do.
        percent: How unsure the model is, of 100, where that is said.
        words: What the queue says.
    """

    kind: str
    percent: int | None
    words: str


def reason_of(words: str) -> Reason:
    """What a queue's words mean.

    >>> reason_of("uncertainty 0.93 of 1, distance 0.20 to the nearest image wanted more or labelled").percent
    93
    """
    for kind, pattern in _KINDS:
        if found := pattern.search(words):
            share = found.groupdict().get("share")
            if share is not None and float(share) < UNSURE:
                return Reason("spread", None, words)  # what made it wanted is where it lies
            return Reason(kind, None if share is None else round(100 * float(share)), words)
    return Reason("other", None, words)
