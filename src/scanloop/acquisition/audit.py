"""Images drawn at random from the pool, whose answers prove what a machine's labels of the rest are worth."""

import numpy as np

from scanloop.grouping import one_a_group
from scanloop.types import Groups, Labels


def draw_audit(groups: Groups, count: int, seed: int) -> Labels:
    """Indices of images drawn at random, one of each of `count` groups drawn at random, in random order.

    A part of the draw from its front is such a draw again, so an audit that was read half is a smaller audit.

    Args:
        groups: (n,) group of each image.
        count: Images, at most; fewer come back where the groups run out.
        seed: Seed of the draw.
    """
    draw = np.random.default_rng(seed)
    drawn: Labels = draw.permutation(one_a_group(groups, draw))[:count]
    return drawn
