"""The policy that every other is held against: images drawn at random."""

import numpy as np

from scanloop.acquisition.situation import Situation
from scanloop.types import Labels


def pick(situation: Situation, count: int) -> Labels:
    """Images in random order, one of each group."""
    return situation.first(np.random.default_rng(situation.seed).permutation(len(situation.groups)), count)
