"""Which images to buy: among the most uncertain, those that differ most, as many as the money allows."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from scanloop.acquisition.diversity import k_center_greedy
from scanloop.acquisition.uncertainty import entropy
from scanloop.embedding.blocks import blocks, unit
from scanloop.types import Float, Groups, Labels, Single, Vectors


@dataclass(frozen=True)
class Candidates:
    """The pool as the policy sees it.

    Attributes:
        probabilities: (n, classes), calibrated.
        vectors: (n, d) embeddings, in any float type.
        groups: (n,) group of each image.
    """

    probabilities: Float
    vectors: Vectors
    groups: Groups


@dataclass(frozen=True)
class Selection:
    """The images to buy, most wanted first.

    Attributes:
        rows: (k,) indices into the candidates.
        uncertainty: (k,) relative entropy, 0..1.
        diversity: (k,) distance to the nearest image wanted more or labelled already, 0..2.
    """

    rows: Labels
    uncertainty: Float
    diversity: Float


def affordable(budget_eur: float, price_eur: float, most: int) -> int:
    """Labels that a budget buys, in exact decimal arithmetic, and no more than `most`.

    >>> affordable(10.0, 0.55, 3000)
    18
    """
    return min(most, int(Decimal(str(budget_eur)) // Decimal(str(price_eur))))


def select(candidates: Candidates, labelled: Vectors, count: int, candidates_per_label: int) -> Selection:
    """Images to buy: the `count * candidates_per_label` most uncertain, thinned to the most different ones.

    Args:
        candidates: The pool.
        labelled: (m, d) embeddings that have a label already.
        count: Images to buy, at most.
        candidates_per_label: 1 is uncertainty alone; the whole pool per label is diversity alone.
    """
    uncertainty = entropy(candidates.probabilities)
    keep = np.argsort(-uncertainty, kind="stable")[: count * candidates_per_label]
    points, covered = _unit(candidates.vectors[keep]), _unit(labelled)
    picked, distances = k_center_greedy(points, covered, candidates.groups[keep], count)
    rows = keep[picked]
    return Selection(rows, uncertainty[rows], distances)


def _unit(vectors: Vectors) -> Single:
    """Rows of unit length, block by block: the whole pool may be asked for."""
    found = np.empty(vectors.shape, dtype=np.float32)
    for rows in blocks(len(vectors)):
        found[rows] = unit(vectors[rows])
    return found
