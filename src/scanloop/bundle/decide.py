"""From what a network gives to what is answered: one call for a batch, numpy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.bundle.exemplars import Ids
from scanloop.bundle.predict import Bundle
from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Neighbours:
    """The labelled images most alike to each image, the nearest first.

    Attributes:
        slice_ids: (n, k) ids.
        labels: (n, k) class indices.
        distances: (n, k) cosine distances, 0..2.
    """

    slice_ids: Ids
    labels: Labels
    distances: Float


@dataclass(frozen=True)
class Decisions:
    """What is answered of a batch.

    Attributes:
        probabilities: (n, classes), calibrated; rows sum to 1.
        labels: (n,) class index at the operating point. It is given for every image: whether to heed it, `reasons` say.
        sets: (n, classes) whether each class is in the conformal set.
        reasons: Of each image "out_of_distribution", "low_confidence", or None where the model does not abstain.
        strangeness: (n,) cosine distance, 0..2; None where the bundle or the engine knows no embeddings.
        neighbours: None where none were asked for, or the bundle or the engine knows no embeddings.
    """

    probabilities: Float
    labels: Labels
    sets: npt.NDArray[np.bool_]
    reasons: list[str | None]
    strangeness: Float | None
    neighbours: Neighbours | None


def decide(
    bundle: Bundle,
    logits: npt.NDArray[np.floating],
    embeddings: npt.NDArray[np.floating] | None,
    *,
    point: str | None = None,
    neighbours: int = 0,
) -> Decisions:
    """Decisions on a network's outputs, in float64 whatever the engine's precision.

    Args:
        bundle: What the network belongs to.
        logits: (n, classes).
        embeddings: (n, d) of the same images; None where the network gives none.
        point: Name of the operating point; the bundle's default when not given.
        neighbours: Exemplars an image.

    Raises:
        BundleError: There is no such operating point.
    """
    probabilities = bundle.calibrator(logits.astype(np.float64))
    knows = embeddings is not None and bundle.abstention.knows_embeddings
    strangeness = bundle.abstention.strangeness(embeddings) if embeddings is not None and knows else None
    shown = None
    if neighbours and embeddings is not None and len(bundle.exemplars.slice_ids):
        shown = Neighbours(*bundle.exemplars.nearest(embeddings, neighbours))
    return Decisions(
        probabilities,
        bundle.points.labels(probabilities, point),
        bundle.conformal.sets(probabilities),
        bundle.abstention.reasons(probabilities, strangeness, bundle.conformal),
        strangeness,
        shown,
    )
