"""Which images to buy: the policy's, none nearly the same as another, and a few at random beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from scanloop.acquisition import (
    at_random,
    auto,
    cluster_margin,
    dropquery,
    entropy,
    k_center,
    margin,
    probcover,
    typiclust,
)
from scanloop.acquisition.situation import Policy, Situation
from scanloop.types import Float, Labels

POLICIES: Mapping[str, Policy] = {
    "auto": auto.pick,
    "random": at_random.pick,
    "entropy": entropy.pick,
    "margin": margin.pick,
    "cluster_margin": cluster_margin.pick,
    "k_center": k_center.pick,
    "typiclust": typiclust.pick,
    "dropquery": dropquery.pick,
    "probcover": probcover.pick,
}

COLLAPSING_ROUNDS = 5
"""Times that images which are nearly the same as a better one are replaced by others."""


@dataclass(frozen=True)
class Selection:
    """The images to buy, most wanted first.

    Attributes:
        rows: (k,) rows of the pool.
        control: (k,) whether a row was drawn at random beside those that the policy chose.
        uncertainty: (k,) relative entropy, 0..1.
        diversity: (k,) distance to the nearest image wanted more or labelled already, 0..2.
        collapsed: Images that the policy wanted and that are nearly the same as one wanted more or labelled.
    """

    rows: Labels
    control: npt.NDArray[np.bool_]
    uncertainty: Float
    diversity: Float
    collapsed: int


def affordable(budget_eur: float, price_eur: float, most: int) -> int:
    """Labels that a budget buys, in exact decimal arithmetic, and no more than `most`.

    >>> affordable(10.0, 0.55, 3000)
    18
    """
    return min(most, int(Decimal(str(budget_eur)) // Decimal(str(price_eur))))


def select(situation: Situation, count: int, name: str, control_share: float, near: float) -> Selection:
    """Images to buy, at most one of a group.

    Args:
        situation: The pool, and what is labelled.
        count: Images to buy, at most.
        name: Key of `POLICIES`.
        control_share: Part of them that is drawn at random from the whole pool, spread evenly over the order, so that
            the gain over random draws is seen in use; none where the policy itself draws at random.
        near: Cosine from which on two images are nearly the same; 2 for never.
    """
    controls = 0 if name == "random" else round(control_share * count)
    drawn = at_random.pick(replace(situation, seed=situation.seed + 1), controls)
    chosen, collapsed = _different(situation.without(drawn), count - len(drawn), POLICIES[name], near)
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in (chosen, drawn)])
    order = np.argsort(places, kind="stable")
    rows = np.concatenate([chosen, drawn])[order]
    reached = k_center.distances_before(
        situation.points(rows).astype(np.float64), situation.labelled.astype(np.float64)
    )
    uncertainty = entropy.entropy(situation.probabilities[rows])
    return Selection(rows, order >= len(chosen), uncertainty, np.minimum(reached, 2), collapsed)


def _different(situation: Situation, count: int, policy: Policy, near: float) -> tuple[Labels, int]:
    """What the policy picks without images nearly the same as one before, and how many of these were left out."""
    kept: list[int] = []
    collapsed = 0
    for _ in range(COLLAPSING_ROUNDS):
        wanted = policy(situation, count - len(kept))
        points = situation.points(np.concatenate([np.array(kept, dtype=np.int64), wanted]))
        for place, row in enumerate(wanted, start=len(kept)):
            mine, others = points[place], (points[: len(kept)], situation.labelled)
            if max(float((part @ mine).max(initial=-1)) for part in others) >= near:
                collapsed += 1
                continue
            points[len(kept)] = mine  # what is kept moves to the front, over what was looked at already
            kept.append(int(row))
        situation = situation.without(wanted)
        if len(kept) >= count or not len(wanted) or not situation.free.any():
            break
    return np.array(kept, dtype=np.int64), collapsed
