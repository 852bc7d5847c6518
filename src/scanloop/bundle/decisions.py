"""What a bundle says of images once its network has run: one definition for every protocol, batch scoring and tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.bundle.engines.engine import Floats, Outputs
from scanloop.bundle.predict import Bundle
from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Decisions:
    """What is said of n images.

    Attributes:
        probabilities: float64 (n, classes), calibrated; rows sum to 1.
        labels: (n,) class indices at the operating point. Every image has one: whether to heed it, `reasons` say.
        members: (n, classes) whether each class is in the image's conformal set.
        reasons: (n,) why the model abstains, or None where it does not.
        strangeness: (n,) cosine distance to the familiar images, 0..2; None where the bundle knows none.
        embeddings: float32 (n, d), or None.
    """

    probabilities: Float
    labels: Labels
    members: npt.NDArray[np.bool_]
    reasons: Sequence[str | None]
    strangeness: Float | None
    embeddings: Floats | None


def decide(bundle: Bundle, outputs: Outputs, point: str | None = None) -> Decisions:
    """Decisions about the images behind some outputs; each is decided alone, whatever stands beside it.

    Args:
        bundle: What the network belongs to.
        outputs: What an engine gave; calibrated in float64 whatever its precision.
        point: Name of the operating point; the bundle's default when not given.

    Raises:
        BundleError: There is no such operating point.
    """
    probabilities = bundle.calibrator(outputs.logits.astype(np.float64))
    strangeness = None
    if outputs.embeddings is not None and bundle.abstention.knows_embeddings:
        strangeness = bundle.abstention.strangeness(outputs.embeddings)
    return Decisions(
        probabilities,
        bundle.points.labels(probabilities, point),
        bundle.conformal.sets(probabilities),
        bundle.abstention.reasons(probabilities, strangeness, bundle.conformal),
        strangeness,
        outputs.embeddings,
    )
