"""How strange an image is to a model: its distance to images that the model is familiar with, held against others'.

The distance to the k-th nearest familiar image in the network's own embedding (Sun et al. 2022, arXiv:2204.06507). Its
threshold is a conformal one (Bates et al. 2023, arXiv:2104.08279): it stands on images that are not among the familiar.
"""

import math

import numpy as np
from scipy.special import bdtrc

from scanloop.types import Float, Half, Single, Vectors

CONFIDENCE = 0.95
NEIGHBOURS = 5
"""The k. At 1 a single foreign image among the familiar ones would make its whole kind familiar."""


def unit_rows(vectors: Vectors) -> Single:
    """Rows of length 1, float32 (n, d); a row of zeros stays one, at distance 1 of every other."""
    rows = vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def to_nearest(vectors: Single, familiar: Single | Half) -> Float:
    """Cosine distance of each row to the k-th nearest familiar one, in 0..2: exact, 2 n m d operations.

    Args:
        vectors: (n, d) rows of length 1.
        familiar: (m, d) rows of length 1.

    Returns:
        (n,); infinite where nothing is familiar, NaN where a row is not finite.
    """
    if not len(familiar):
        return np.full(len(vectors), np.inf)
    place = min(NEIGHBOURS, len(familiar)) - 1
    distances = 1 - (vectors @ familiar.astype(np.float32, copy=False).T).astype(np.float64)
    nearest: Float = np.partition(distances, place, axis=1)[:, place]
    return np.where(np.isnan(distances).any(axis=1), np.nan, nearest)


def conformal_threshold(scores: Float, share: float) -> float:
    """Score above which at most this share of further images lies, with 95 % confidence over draws of the calibration.

    Of n scores it is the smallest whose share of further images beyond, Beta(n + 1 - rank, rank) distributed, exceeds
    the promise with a probability of at most 0.05 (Vovk 2012, "Conditional validity", arXiv:1209.2673). At 0.05 that
    takes 59; with fewer, down to 1 / share - 1, it is the largest, and the promise holds on average over draws alone.
    A further image and the n must be such as could have changed places, one a group.

    Args:
        scores: (n,) of images that nothing was fitted on.
        share: In (0, 1).

    Returns:
        Infinite where n is below 1 / share - 1: so few can promise nothing else.
    """
    count = len(scores)
    if count < 1 / share - 1 - 1e-9:
        return math.inf
    ranks = np.arange(1, count + 1)
    sure = ranks[bdtrc(ranks - 1, count, 1 - share) <= 1 - CONFIDENCE]
    return float(np.sort(scores)[(sure[0] if len(sure) else count) - 1])
