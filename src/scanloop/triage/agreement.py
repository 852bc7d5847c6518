"""Whether the clusters say anything about the labels: agreement, against what shuffled labels reach by chance."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scanloop.types import Labels

SHUFFLES = 500
QUANTILE = 0.95
LEAST_LABELLED = 10


@dataclass(frozen=True)
class Agreement:
    """Agreement of clusters and labels on the labelled part.

    Attributes:
        ari: Adjusted Rand index (Hubert and Arabie 1985), -0.5..1, 0 by chance; None with too few labels.
        nmi: Normalised mutual information, 0..1; None with too few labels.
        chance: 95th percentile of the index under shuffled labels.
        labelled: Labelled images behind it.
        verdict: What follows, in words.
    """

    ari: float | None
    nmi: float | None
    chance: float | None
    labelled: int
    verdict: str


def agreement(clusters: Labels, labels: Labels, seed: int) -> Agreement:
    """Agreement of the clusters (n,) and the labels (n,) of the same labelled images."""
    count = len(labels)
    if count < LEAST_LABELLED:
        return Agreement(
            None, None, None, count, f"{count} labelled images are too few to compare clusters with labels"
        )
    ari = float(adjusted_rand_score(labels, clusters))
    draw = np.random.default_rng(seed)
    shuffled = [adjusted_rand_score(draw.permutation(labels), clusters) for _ in range(SHUFFLES)]
    chance = float(np.quantile(shuffled, QUANTILE))
    follows = "the clusters follow the labels" if ari > chance else "the clusters show no relation to the labels"
    verdict = (
        f"{follows}: adjusted Rand index {ari:.2f}, shuffled labels stay below {chance:.2f} in 95 of 100 (n={count})"
    )
    return Agreement(ari, float(normalized_mutual_info_score(labels, clusters)), chance, count, verdict)
