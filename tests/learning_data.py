"""Labelled rows and a pool, drawn by seed: two classes apart by a little, groups of two, some rows bought."""

import numpy as np

from scanloop.learning.dataset import Known, Pool


def new_known(
    n: int = 60, d: int = 6, classes: int = 2, seed: int = 0, bought: int = 0, gap: float = 1.0, per_group: int = 2
) -> Known:
    """Rows whose class moves them along the first axes; the last `bought` of them were not drawn at random."""
    draw = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    labels = groups % classes
    vectors = draw.normal(size=(n, d)) + gap * np.eye(classes, d)[labels] * 2
    ids = np.array([f"k{row:04d}" for row in range(n)], dtype=object)
    names = np.array([f"g{group:04d}" for group in groups], dtype=object)
    return Known(ids, vectors.astype(np.float16), labels.astype(np.int64), names, np.arange(n) < n - bought)


def new_pool(n: int = 50, d: int = 6, classes: int = 2, seed: int = 1, gap: float = 1.0, shared: int = 0) -> Pool:
    """Rows like those of `new_known`; the first `shared` stand in groups of the labelled rows."""
    like = new_known(n, d, classes, seed, gap=gap)
    groups = np.array([f"g{row:04d}" if row < shared else f"p{row:04d}" for row in range(n)], dtype=object)
    return Pool(np.array([f"u{row:04d}" for row in range(n)], dtype=object), like.vectors, groups)
