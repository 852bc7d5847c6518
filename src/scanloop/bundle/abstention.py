"""When the model leaves an image to a reader: it is unlike the archive, or no class is sure enough."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.bundle.arrays import from_npz, to_npz
from scanloop.bundle.exemplars import Ids
from scanloop.calibration.conformal import Conformal
from scanloop.calibration.strangeness import NEIGHBOURS, conformal_threshold, to_nearest, unit_rows
from scanloop.errors import BundleError
from scanloop.types import Float, Half, Single, Vectors

OUT_OF_DISTRIBUTION, LOW_CONFIDENCE = "out_of_distribution", "low_confidence"
FILE, FAMILIAR = "abstention.json", "familiar.npz"

UNSEEN = (
    "Calibrated on images that the model did not learn from: of further images of the same kind, one a group, at most "
    "this share is called strange, with 95 % confidence where enough calibrated (59 at 5 %), else on average."
)
LEARNT = (
    "There were too few images that the model did not learn from: calibrated on ones that it did, whose embeddings "
    "may be more alike than those of new images. More than this share of new images may be called strange."
)
NOTHING = "Nothing was calibrated: no image is called strange."


@dataclass(frozen=True)
class Familiar:
    """Images of the archive in the embedding of the network that is served, one a group.

    Attributes:
        slice_ids: (m,) ids.
        vectors: float16 (m, d), rows of length 1.
        reference: (m,) whether new images are compared with it; the others calibrate the threshold.
    """

    slice_ids: Ids
    vectors: Half
    reference: npt.NDArray[np.bool_]

    def to_npz(self) -> bytes:
        """Content of `familiar.npz`."""
        return to_npz(slice_ids=self.slice_ids, embeddings=self.vectors, reference=self.reference)


@dataclass(frozen=True)
class Abstention:
    """The rule, and what it stands on.

    Attributes:
        strange_share: Further images of the archive's kind that may be called strange, at most.
        threshold: Strangeness from beyond which an image is; infinite where too few images calibrated it.
        least_confidence: Least probability of the most probable class; None: by the conformal set.
        guarantee: What holds of the threshold, in words.
        familiar: What strangeness is measured against.
    """

    strange_share: float
    threshold: float
    least_confidence: float | None
    guarantee: str
    familiar: Familiar
    _reference: Single = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = self.familiar.vectors[self.familiar.reference]
        object.__setattr__(self, "_reference", rows.astype(np.float32))

    def strangeness(self, embeddings: Vectors) -> Float:
        """Cosine distance (n,), 0..2, of embeddings (n, d) to the k-th nearest familiar image.

        A matrix product: 1 MFLOP an image against 1,000 images of 512 numbers.
        """
        return to_nearest(unit_rows(embeddings), self._reference)

    @property
    def knows_embeddings(self) -> bool:
        """Whether there is anything to compare an image with."""
        return bool(len(self._reference))

    def reasons(self, probabilities: Float, strangeness: Float | None, conformal: Conformal) -> list[str | None]:
        """Why the model abstains from each image: "out_of_distribution", "low_confidence", or None where it does not.

        A strange image is called that whatever the probabilities say. Of the others the model abstains where the most
        probable class has less than `least_confidence`; where none is given, where the conformal set holds another
        class as well. That is what the bundle knows of its own mistakes: at the stated error the labels at hand do not
        rule the other class out. Classes that are in every set for want of images do not count.

        Args:
            probabilities: (n, classes), calibrated.
            strangeness: (n,) of the same images; None where the network gives no embeddings, as that of an old bundle.
            conformal: Thresholds of the sets of classes.
        """
        strange = np.zeros(len(probabilities), dtype=bool)
        if strangeness is not None and math.isfinite(self.threshold):
            strange = ~(strangeness <= self.threshold)  # what is no number is strange
        unsure = self._unsure(probabilities, conformal)
        return [
            OUT_OF_DISTRIBUTION if is_strange else LOW_CONFIDENCE if is_unsure else None
            for is_strange, is_unsure in zip(strange.tolist(), unsure.tolist(), strict=True)
        ]

    def without(self, slice_ids: Collection[str]) -> "Abstention":
        """The rule without these images; its threshold is that of those that are left."""
        kept = ~np.isin(self.familiar.slice_ids, np.array(sorted(slice_ids), dtype=str))
        if kept.all():
            return self
        familiar = self.familiar
        left = Familiar(familiar.slice_ids[kept], familiar.vectors[kept], familiar.reference[kept])
        return Abstention(
            self.strange_share, _threshold(left, self.strange_share), self.least_confidence, self.guarantee, left
        )

    def as_json(self) -> dict[str, Any]:
        """Content of `abstention.json`."""
        used = int(self.familiar.reference.sum())
        return {
            "score": f"cosine distance to familiar image number {NEIGHBOURS} by nearness",
            "strange_share": self.strange_share,
            "threshold": self.threshold if math.isfinite(self.threshold) else None,
            "reference_images": used,
            "calibration_images": len(self.familiar.reference) - used,
            "least_confidence": self.least_confidence,
            "guarantee": self.guarantee,
        }

    def _unsure(self, probabilities: Float, conformal: Conformal) -> npt.NDArray[np.bool_]:
        if self.least_confidence is not None:
            return ~np.asarray(probabilities.max(axis=1) >= self.least_confidence)
        inside = conformal.sets(probabilities)
        inside[:, np.array(conformal.thresholds) <= 0] = False
        inside[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = False
        return np.asarray(inside.any(axis=1))


def fit_abstention(
    familiar: Familiar, strange_share: float, least_confidence: float | None, guarantee: str = UNSEEN
) -> Abstention:
    """The rule whose threshold the images calibrate that are not the reference."""
    return Abstention(strange_share, _threshold(familiar, strange_share), least_confidence, guarantee, familiar)


def abstention_from(stored: Mapping[str, Any], arrays: bytes) -> Abstention:
    """The rule in the contents of `abstention.json` and `familiar.npz`.

    Raises:
        BundleError: They hold none that this version understands.
    """
    kinds = {"slice_ids": "U", "embeddings": "f", "reference": "b"}
    familiar = Familiar(*from_npz(arrays, kinds))
    try:
        share, threshold, least = (stored[name] for name in ("strange_share", "threshold", "least_confidence"))
        limit = math.inf if threshold is None else float(threshold)
        confidence = None if least is None else float(least)
        rule = Abstention(float(share), limit, confidence, str(stored["guarantee"]), familiar)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{FILE} holds no rule ({error!r})") from error
    if familiar.vectors.ndim != 2 or math.isnan(limit) or not 0 < rule.strange_share < 1:
        raise BundleError(f"{FILE} holds no rule: a number is out of its range")
    return rule


def no_abstention() -> Abstention:
    """The rule of a bundle that has none: it abstains from nothing."""
    nothing = Familiar(np.empty(0, dtype="U1"), np.empty((0, 0), np.float16), np.empty(0, dtype=bool))
    return Abstention(0.05, math.inf, 0.0, NOTHING, nothing)


def _threshold(familiar: Familiar, share: float) -> float:
    reference, others = (
        familiar.vectors[kept].astype(np.float32) for kept in (familiar.reference, ~familiar.reference)
    )
    return conformal_threshold(to_nearest(others, reference), share) if len(reference) else math.inf
