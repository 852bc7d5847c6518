"""What is bought where nobody says otherwise: typical images while labels are few, then hesitation with variety.

Measured against random draws on four sets of classes (docs/benchmarks.md, bench-acquire).
"""

import numpy as np

from scanloop.acquisition import cluster_margin, typiclust
from scanloop.acquisition.situation import Situation
from scanloop.types import Labels

FEW = 5
"""Labels a class, on average, below which the head's doubts are not asked for."""


def pick(situation: Situation, count: int) -> Labels:
    """Typical images up to five labels a class; after them, representatives of those on which the head hesitates."""
    few = min(count, max(0, FEW * situation.classes - len(situation.labels)))
    typical = typiclust.pick(situation, few) if few else np.empty(0, dtype=np.int64)
    return np.concatenate([typical, cluster_margin.pick(situation.without(typical), count - len(typical))])
