"""Other scores of strangeness than the bundle's own, on the same images under the same conformal rank."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.covariance import LedoitWolf

from scanloop.bundle.engines.engine import Outputs
from scanloop.bundle.predict import Bundle
from scanloop.calibration.strangeness import conformal_threshold, unit_rows

Score = Callable[[Any], Any]
PLANTED = 4
"""Foreign images among the familiar ones, where an archive is not clean."""
VARIANCE = 0.9
"""Share of variance that the principal subspace keeps, outside of which the residual lies."""


def other_scores(model: Bundle, own: Outputs, foreign: Mapping[str, Outputs]) -> dict[str, dict[str, float]]:
    """Share called strange by each score, among the archive's own held-out images and by foreign kind.

    Args:
        model: Its familiar images give the reference and the calibration.
        own: Outputs of held-out images, one a group.
        foreign: Outputs by kind.
    """
    familiar = model.abstention.familiar
    vectors = familiar.vectors.astype(np.float64)
    reference, calibration = vectors[familiar.reference], vectors[~familiar.reference]
    share = model.abstention.strange_share
    asked = {"own, one a group": _unit(own)} | {kind: _unit(outputs) for kind, outputs in foreign.items()}

    def strange(score: Score, rows: Any) -> float:
        return float((score(rows) > conformal_threshold(score(calibration), share)).mean())

    found = {
        name: {kind: strange(score, rows) for kind, rows in asked.items()} for name, score in _scores(reference).items()
    }
    for k in (1, 5, 10):
        found[f"nearest {k}, {PLANTED} of the kind among the familiar"] = {
            kind: strange(_nearest(np.concatenate([reference, rows[:PLANTED]]), k), rows[PLANTED:])
            for kind, rows in asked.items()
        }
    return found


def _unit(outputs: Outputs) -> Any:
    assert outputs.embeddings is not None
    return unit_rows(outputs.embeddings).astype(np.float64)


def _nearest(reference: Any, k: int) -> Score:
    return lambda rows: np.partition(1 - rows @ reference.T, k - 1, axis=1)[:, k - 1]


def _scores(reference: Any) -> dict[str, Score]:
    """The k-th nearest of the reference, Mahalanobis (Lee et al. 2018), and the residual of ViM (Wang et al. 2022)."""
    covariance = LedoitWolf().fit(reference)
    mean = reference.mean(axis=0)
    _, spread, axes = np.linalg.svd(reference - mean, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(spread**2) / np.sum(spread**2), VARIANCE)) + 1

    def residual(rows: Any) -> Any:
        centred = rows - mean
        return np.linalg.norm(centred - centred @ axes[:kept].T @ axes[:kept], axis=1)

    return {
        **{f"nearest {k}": _nearest(reference, k) for k in (1, 5, 10)},
        "Mahalanobis, shrunk covariance": covariance.mahalanobis,
        "residual outside of 90 % of the variance": residual,
    }
