"""Images whose class changes when features are dropped, one of each cluster: DropQuery.

Gupte et al. 2024, "Revisiting Active Learning in the Era of Vision Foundation Models", arXiv:2401.14555.
"""

import numpy as np

from scanloop.acquisition.clusters import representatives
from scanloop.acquisition.situation import Situation
from scanloop.embedding.blocks import blocks
from scanloop.types import Labels

DRAWS, DROPPED = 3, 0.75
"""Times that features are dropped, and the share that is: the paper's."""


def pick(situation: Situation, count: int) -> Labels:
    """Representatives of the images whose class changes in most draws; with too few, of those that change most."""
    changes = changed(situation)
    order = np.argsort(-changes, kind="stable")
    order = order[situation.free[order]]
    unstable = int((2 * changes[order] > DRAWS).sum())
    rows = order[: unstable if unstable >= count else situation.breadth * count]
    found = rows[representatives(situation.points(rows), situation.groups[rows], count, situation.seed)]
    return np.concatenate([found, situation.without(found).first(order, count - len(found))])


def changed(situation: Situation) -> Labels:
    """Draws (n,) in which an image gets another class than with all its features, 0..3."""
    draw = np.random.default_rng(situation.seed)
    whole = situation.probabilities.argmax(axis=1)
    found = np.zeros(len(whole), dtype=np.int64)
    for _ in range(DRAWS):
        for rows in blocks(len(whole)):
            part = situation.vectors[rows].astype(np.float64)
            kept = draw.random(part.shape) >= DROPPED
            found[rows] += situation.answer(part * kept / (1 - DROPPED)).argmax(axis=1) != whole[rows]
    return found
