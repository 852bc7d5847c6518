"""Images on which the head hesitates between two classes (Scheffer et al. 2001, doi:10.1007/3-540-44816-0_31)."""

import numpy as np

from scanloop.acquisition.situation import Situation
from scanloop.types import Float, Labels


def pick(situation: Situation, count: int) -> Labels:
    """The images of smallest margin."""
    return situation.first(np.argsort(margin(situation.probabilities), kind="stable"), count)


def margin(probabilities: Float) -> Float:
    """Probability of the likeliest class less that of the next (n,), 0..1, of probabilities (n, classes)."""
    best = np.partition(probabilities, -2, axis=1)
    found: Float = best[:, -1] - best[:, -2]
    return found
