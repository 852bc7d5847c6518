"""Feature vectors laid out on a plane, neighbours beside neighbours; and how often neighbours share a class.

Distances between clusters, their sizes and their density on such a map mean nothing (Wattenberg et al. 2016,
doi:10.23915/distill.00002): it is for looking, and the neighbours' agreement in the full space is what counts.
"""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from scanloop.errors import ConfigError
from scanloop.evaluation.intervals import Resampling, bootstrap_interval
from scanloop.types import Float, Groups, Interval, Labels, Vectors

COMPONENTS, PERPLEXITY, NEIGHBOURS = 50, 30.0, 15
LEAST = 10
"""Fewer images make no map."""


def to_plane(vectors: Vectors, method: str, seed: int) -> Float:
    """Coordinates (n, 2), the same for the same vectors and seed, whatever the cores.

    Standardised, reduced to 50 principal components, then t-SNE (van der Maaten and Hinton 2008) from the first two of
    them at perplexity 30, or UMAP (McInnes et al. 2018, arXiv:1802.03426) at 15 neighbours.

    Args:
        vectors: (n, d), n at least `LEAST`.
        method: "tsne" or "umap".
        seed: Seed.

    Raises:
        ConfigError: UMAP is asked for and not installed.
    """
    values: Float = np.asarray(vectors, dtype=np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread < 1e-8, 1.0, spread)
    with threadpool_limits(1):  # sums over threads come in any order
        reduced = PCA(min(COMPONENTS, *values.shape), random_state=seed, svd_solver="full").fit_transform(values)
        if method == "umap":
            points = _umap(reduced, seed)
        else:
            perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
            points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    rounded: Float = np.round(points, 3).astype(np.float64)
    return rounded


def _umap(values: Float, seed: int) -> Float:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ConfigError(
            "evaluate.map.method umap needs umap-learn: pip install 'scanloop[umap]', or set it to tsne"
        ) from error
    points: Float = UMAP(n_neighbors=min(NEIGHBOURS, len(values) - 1), random_state=seed, n_jobs=1).fit_transform(
        values
    )
    return points


def neighbour_agreement(vectors: Vectors, labels: Labels, groups: Groups, plan: Resampling) -> Interval | None:
    """Share of images whose nearest image of another group, by cosine, has the same class, with its interval.

    None where there is only one group or one class: nothing could disagree.

    Args:
        vectors: (n, d).
        labels: (n,) class indices.
        groups: (n,).
        plan: Resamples, confidence and seed.
    """
    if len(np.unique(groups)) < 2 or len(np.unique(labels)) < 2:
        return None
    values: Float = np.asarray(vectors, dtype=np.float64)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    distances = cdist(values, values, "sqeuclidean")
    distances[groups[:, None] == groups[None, :]] = np.inf
    same = (labels[distances.argmin(axis=1)] == labels).astype(np.float64)
    return bootstrap_interval(lambda weights: (weights @ same) / weights.sum(axis=1), groups, plan)
