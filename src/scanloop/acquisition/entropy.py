"""Images on which the head's probabilities are spread the widest (Settles 2009, Active Learning Literature Survey)."""

import numpy as np

from scanloop.acquisition.situation import Situation
from scanloop.types import Float, Labels


def pick(situation: Situation, count: int) -> Labels:
    """The images of highest entropy."""
    return situation.first(np.argsort(-entropy(situation.probabilities), kind="stable"), count)


def entropy(probabilities: Float) -> Float:
    """Entropy of each row, divided by that of a uniform guess (Shannon 1948).

    Args:
        probabilities: (n, classes), rows sum to 1.

    Returns:
        (n,), range 0 (certain) to 1 (no idea).
    """
    logs = np.log(np.clip(probabilities, np.finfo(np.float64).tiny, 1))
    relative: Float = -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])
    return np.clip(relative, 0, 1)
