"""Sets of classes that hold the true one with a stated probability: split-conformal prediction, applied by numpy."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.errors import BundleError
from scanloop.types import Float, Labels

SPLIT = (
    "The images behind the thresholds were not learnt from: for further images of the same kind, one a group, the set "
    "holds the true class with a probability of at least 1 - alpha."
)
CROSS_VALIDATED = (
    "The thresholds come from cross-validated scores and serve a model trained on all labels. 1 - alpha is what they "
    "aim at, on average over draws of the labels; no bound holds in finite samples whatever the data: CV+ (Barber et "
    "al. 2021), which keeps the models of all folds, would guarantee 1 - 2 alpha."
)
ROUNDING = 1e-6
"""A probability this little below a threshold is at it: engines differ by as much."""

NOTHING = "No thresholds were fitted: every set holds all classes."


@dataclass(frozen=True)
class Conformal:
    """Thresholds on the calibrated probability, from which on a class is in the set.

    Attributes:
        alpha: Share of sets that may miss the true class.
        thresholds: (classes,) least probability; 0 where there are too few images to leave the class out ever.
        n: (classes,) images behind each threshold, one a group.
        per_class: Whether each class has its own threshold. Then the promise holds class by class, and so under other
            shares of the classes as well; one common threshold promises it for the shares that it was fitted on.
        guarantee: What holds, in words.
    """

    alpha: float
    thresholds: tuple[float, ...]
    n: tuple[int, ...]
    per_class: bool
    guarantee: str

    def sets(self, probabilities: Float) -> npt.NDArray[np.bool_]:
        """Whether each class is in the set, (n, classes); the most probable class always is."""
        inside: npt.NDArray[np.bool_] = probabilities >= np.array(self.thresholds) - ROUNDING
        inside[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
        return inside

    def as_json(self) -> dict[str, Any]:
        """As plain values, for `conformal.json`; `conformal_from` reads them."""
        return asdict(self)

    def check(self, classes: int) -> None:
        """Return if these are thresholds for so many classes.

        Raises:
            BundleError: They are not, or one is no probability.
        """
        if not (0 < self.alpha < 1 and len(self.thresholds) == len(self.n) == classes):
            raise BundleError(f"conformal sets need a threshold for each of {classes} classes, and alpha in (0, 1)")
        if any(not 0 <= threshold <= 1 for threshold in self.thresholds) or min(self.n) < 0:
            raise BundleError("a threshold of the conformal sets is no probability, or a count is negative")


def fit_conformal(
    probabilities: Float, labels: Labels, alpha: float, *, per_class: bool, guarantee: str = SPLIT
) -> Conformal:
    """Thresholds of the least ambiguous sets (Sadinle et al. 2019, arXiv:1609.00451).

    The score of an image is 1 minus the probability of its class. Of n scores the one at rank ceil((n + 1)(1 - alpha))
    is the largest that a set admits; with n < 1 / alpha - 1 there is no such rank, and the class is in every set.

    Args:
        probabilities: (repeats, n, classes) of images that the models did not learn from, one a group. Repeats are
            further models' word on the same images: ranks are counted over all, n counts images.
        labels: (n,) class indices.
        alpha: Share of sets that may miss the true class, in (0, 1).
        per_class: Whether each class has its own threshold (Vovk 2012, "Conditional validity", arXiv:1209.2673).
        guarantee: What holds for them, in words.
    """
    classes = probabilities.shape[2]
    own = probabilities[:, np.arange(len(labels)), labels]
    parts = [labels == label for label in range(classes)] if per_class else [np.ones(len(labels), bool)] * classes
    counts = tuple(int(part.sum()) for part in parts)
    return Conformal(alpha, tuple(_threshold(own[:, part], alpha) for part in parts), counts, per_class, guarantee)


def no_conformal(classes: int) -> Conformal:
    """Thresholds of a bundle that has none: every set holds all classes."""
    return Conformal(0.1, (0.0,) * classes, (0,) * classes, False, NOTHING)


def conformal_from(stored: Mapping[str, Any], classes: int) -> Conformal:
    """Thresholds in the content of `conformal.json`.

    Raises:
        BundleError: It holds none that this version understands.
    """
    try:
        found = Conformal(
            float(stored["alpha"]),
            tuple(float(value) for value in stored["thresholds"]),
            tuple(int(value) for value in stored["n"]),
            bool(stored["per_class"]),
            str(stored["guarantee"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"conformal.json holds no thresholds ({error!r})") from error
    found.check(classes)
    return found


def _threshold(own: Float, alpha: float) -> float:
    """Least admitted probability, from each image's probability of its own class, (repeats, n)."""
    repeats, count = own.shape
    rank = math.ceil((count + 1) * (1 - alpha) - 1e-9)  # (n + 1)(1 - alpha) is often whole, but for rounding
    if rank > count:
        return 0.0
    return float(np.sort(own.ravel())[::-1][rank * repeats - 1])
