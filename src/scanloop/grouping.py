"""Groups: images of one patient, and near-duplicates, which are not independent of one another."""

import numpy as np

from scanloop.types import Groups, Labels


def one_a_group(groups: Groups, draw: np.random.Generator | int) -> Labels:
    """Indices of one row of each group, drawn at random, in the order of the groups' names.

    Args:
        groups: (n,) group of each row.
        draw: Source of the draw, or its seed.
    """
    order = np.random.default_rng(draw).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    rows: Labels = order[first]
    return rows
