"""How many readings a task gets, and when they disagree."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from scanloop.errors import LabellingError

UNSURE, BAD_IMAGE = "unsure", "bad image"
NO_LABEL = (UNSURE, BAD_IMAGE)
"""Answers that give no label."""

MOST_READINGS = 9


@dataclass(frozen=True)
class DoubleReading:
    """Which tasks are read more than once.

    Attributes:
        which: "none"; "all"; "share", a part drawn by the seed and the image's id; "disagreement", those whose first
            reading gives another class than the model.
        readings: Readings of such a task, 2 to 9; every other task gets one.
        share: Part of the tasks, in [0, 1].
        seed: Of the draw.
    """

    which: Literal["none", "all", "share", "disagreement"] = "none"
    readings: int = 2
    share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.which not in ("none", "all", "share", "disagreement"):
            raise LabellingError(f"{self.which!r} is no policy of double reading: none, all, share or disagreement")
        if not 2 <= self.readings <= MOST_READINGS or not 0 <= self.share <= 1:
            raise LabellingError(f"double reading takes 2 to {MOST_READINGS} readings and a share between 0 and 1")

    def at_first(self, slice_id: str) -> int:
        """Readings that a task wants before anybody has read it.

        >>> DoubleReading("share", share=1.0).at_first("a"), DoubleReading("disagreement").at_first("a")
        (2, 1)
        """
        drawn = self.which == "all" or (self.which == "share" and _draw(self.seed, slice_id) < self.share)
        return self.readings if drawn else 1

    def wanted(self, at_first: int, model_label: str | None, answers: Collection[str]) -> int:
        """Readings that a task wants with these answers at hand.

        >>> DoubleReading("disagreement").wanted(1, "normal", ["pneumonia"])
        2
        """
        differs = {*answers} - {model_label, *NO_LABEL}
        return self.readings if self.which == "disagreement" and model_label is not None and differs else at_first


def require_answer(given: str, classes: Collection[str]) -> None:
    """Return if an answer is one that can be given: a class, or one that gives no label.

    Raises:
        LabellingError: It is not.
    """
    if given not in (*classes, *NO_LABEL):
        raise LabellingError(f"the answer is none of {', '.join((*classes, *NO_LABEL))}")


def disagree(answers: Collection[str]) -> bool:
    """Whether readings need an adjudicator: any two differ, "unsure" and "bad image" counted as answers.

    >>> disagree(["normal", "normal"]), disagree(["normal", "unsure"])
    (False, True)
    """
    return len({*answers}) > 1


def _draw(seed: int, slice_id: str) -> float:
    """Number in [0, 1) that is this image's under this seed, whatever else is in the wave."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{slice_id}".encode()).digest()[:6], "big") / 2**48
