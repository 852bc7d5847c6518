"""Which class an image is called: the most probable one, or by a threshold of the positive class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanloop.errors import BundleError
from scanloop.sections.serving import ARGMAX
from scanloop.types import Float, Labels

FILE = "operating_points.json"


@dataclass(frozen=True)
class OperatingPoints:
    """Named rules from probabilities to a label.

    Attributes:
        thresholds: By name: an image is called positive from this probability on; None calls the most probable class.
        default: Name of the one that labels where none is asked for.
        positive: Index of the positive class.
        chosen_n: Images that chose the thresholds, out of fold; no image of the hold-out is among them.
    """

    thresholds: Mapping[str, float | None]
    default: str
    positive: int
    chosen_n: int

    def labels(self, probabilities: Float, point: str | None = None) -> Labels:
        """Class index of each image at a point.

        Args:
            probabilities: (n, classes), calibrated.
            point: Name; the default when not given.

        Returns:
            (n,) int64.

        Raises:
            BundleError: There is no such point.
        """
        name = self.default if point is None else point
        if name not in self.thresholds:
            raise BundleError(f"no operating point {name!r} here; there are {', '.join(self.thresholds)}")
        threshold = self.thresholds[name]
        if threshold is None:
            labels: Labels = probabilities.argmax(axis=1)
            return labels
        return np.where(probabilities[:, self.positive] >= threshold, self.positive, 1 - self.positive)

    def check(self, classes: int) -> None:
        """Return if these are points of so many classes.

        Raises:
            BundleError: The default is none of them, a threshold is no number, or there are more than two classes.
        """
        given = [threshold for threshold in self.thresholds.values() if threshold is not None]
        if self.default not in self.thresholds or self.thresholds.get(ARGMAX, 0) is not None:
            raise BundleError(f"operating points need {ARGMAX}, and a default that is one of them")
        if given and classes != 2:
            raise BundleError(f"a threshold of one class leaves the label open among {classes} classes")
        if not np.isfinite(given).all() or not 0 <= self.positive < classes:
            raise BundleError("a threshold of the operating points is no number, or the positive class is none")

    def as_json(self) -> dict[str, Any]:
        """Content of `operating_points.json`."""
        return {
            "points": [{"name": name, "threshold": threshold} for name, threshold in self.thresholds.items()],
            "default": self.default,
            "positive": self.positive,
            "chosen_on": "out_of_fold",
            "chosen_n": self.chosen_n,
        }


def points_from(stored: Mapping[str, Any], classes: int) -> OperatingPoints:
    """Points in the content of `operating_points.json`.

    Raises:
        BundleError: It holds none that this version understands.
    """
    try:
        thresholds = {str(one["name"]): _number(one["threshold"]) for one in stored["points"]}
        found = OperatingPoints(thresholds, str(stored["default"]), int(stored["positive"]), int(stored["chosen_n"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{FILE} holds no points ({error!r})") from error
    found.check(classes)
    return found


def argmax_only(positive: int) -> OperatingPoints:
    """The points of a bundle that has none: the most probable class."""
    return OperatingPoints({ARGMAX: None}, ARGMAX, positive, 0)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
