"""What the nearest labelled neighbours say."""

import numpy as np

from scanloop.embedding.blocks import unit
from scanloop.types import Float, Groups, Half, Labels, Vectors

BLOCK_ROWS = 4096


def neighbour_vote(
    labelled: Half | Float, labels: Labels, queries: Half | Float, neighbours: int, classes: int
) -> tuple[Labels, Float]:
    """Majority class among the nearest labelled images by angle, and its share of the votes.

    Args:
        labelled: (m, d) embeddings with a label.
        labels: (m,) their class indices.
        queries: (n, d) embeddings without.
        neighbours: Votes; all labelled images when there are fewer.
        classes: Number of classes.

    Returns:
        Winning class (n,), the lower index on a tie, and its share (n,), 1/classes..1.
    """
    base = unit(labelled)
    count = min(neighbours, len(base))
    winners, shares = np.empty(len(queries), dtype=np.int64), np.empty(len(queries))
    for start in range(0, len(queries), BLOCK_ROWS):
        similarity = unit(queries[start : start + BLOCK_ROWS]) @ base.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        votes = (labels[nearest][:, :, None] == np.arange(classes)).sum(axis=1)
        winners[start : start + BLOCK_ROWS] = votes.argmax(axis=1)
        shares[start : start + BLOCK_ROWS] = votes.max(axis=1) / count
    return winners, shares


def nearest_labelled(labelled: Vectors, queries: Vectors, count: int) -> Labels:
    """Rows (n, count) of the labelled images (m, d) nearest to each query (n, d) by angle, nearest first."""
    base = unit(labelled)
    nearest = np.empty((len(queries), min(count, len(base))), dtype=np.int64)
    for start in range(0, len(queries), BLOCK_ROWS):
        similarity = unit(queries[start : start + BLOCK_ROWS]) @ base.T
        nearest[start : start + BLOCK_ROWS] = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return nearest


def anomaly(labelled: Half | Float, queries: Half | Float) -> Float:
    """Angular distance (n,) of each query to the nearest labelled image, 0 (same direction) to 2 (opposite)."""
    base = unit(labelled)
    blocks = [
        1 - (unit(queries[start : start + BLOCK_ROWS]) @ base.T).max(axis=1)
        for start in range(0, len(queries), BLOCK_ROWS)
    ]
    return np.clip(np.concatenate(blocks), 0, 2) if blocks else np.empty(0)


def nearest_prototype(labelled: Half | Float, labels: Labels, queries: Half | Float, classes: int) -> Labels:
    """Class (n,) whose mean direction is nearest (Snell et al. 2017, arXiv:1703.05175, on frozen features).

    Args:
        labelled: (m, d) embeddings with a label; every class occurs.
        labels: (m,) their class indices.
        queries: (n, d) embeddings without.
        classes: Number of classes.
    """
    rows = unit(labelled)
    means = unit(np.stack([rows[labels == label].mean(axis=0) for label in range(classes)]))
    nearest = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), BLOCK_ROWS):
        nearest[start : start + BLOCK_ROWS] = (unit(queries[start : start + BLOCK_ROWS]) @ means.T).argmax(axis=1)
    return nearest


def usual_anomaly(labelled: Half | Float, groups: Groups, share: float) -> float:
    """Distance to the nearest labelled image of another group that this share of the labelled images does not exceed.

    Args:
        labelled: (m, d) embeddings, of at least two groups.
        groups: (m,) their groups.
        share: 0..1; 1 is the largest distance.
    """
    rows = unit(labelled)
    nearest = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK_ROWS):
        similarity = rows[start : start + BLOCK_ROWS] @ rows.T
        similarity[groups[start : start + BLOCK_ROWS, None] == groups] = -np.inf
        nearest[start : start + BLOCK_ROWS] = 1 - similarity.max(axis=1)
    return float(np.quantile(nearest, share))
