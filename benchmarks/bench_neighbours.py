"""Search index, clusters and near-duplicates at scale: FAISS against what is done without it.

.venv/bin/python benchmarks/bench_neighbours.py --n 200000
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from bench_select import DIMENSION, mixture
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from scanloop.triage.clusters import MOST_FITTED
from scanloop.triage.density import density_clusters
from scanloop.triage.near import References, pushed_out
from scanloop.triage.neighbours import build_index
from scanloop.types import Single

SHARD = 4096


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def peak_mb() -> float:
    """Most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def search(values: Single) -> dict[str, Any]:
    """Building both kinds of index, and a search of 100 slices in each."""
    parts = [
        (np.arange(start, min(start + SHARD, len(values))), values[start : start + SHARD].astype(np.float16))
        for start in range(0, len(values), SHARD)
    ]
    names, figures = [f"{row:064x}" for row in range(len(values))], {}
    for kind, exact in (("lists", 1), ("exact", len(values))):
        with tempfile.TemporaryDirectory() as folder:
            before = peak_mb()
            index, seconds = timed(lambda: build_index(Path(folder), parts, names, DIMENSION, exact, 0))  # noqa: B023
            figures[f"{kind}_build_seconds"], figures[f"{kind}_peak_mb_more"] = seconds, peak_mb() - before
            figures[f"{kind}_mb"] = sum(part["bytes"] for part in index.facts["parts"]) / 1e6
            figures[f"{kind}_recall_at_10"] = index.facts["recall"]["value"]
            figures[f"{kind}_100_searches_seconds"] = timed(lambda: index.search(values[:100], 10))[1]  # noqa: B023
    return figures


def k_means(values: Single, k: int) -> dict[str, Any]:
    """scikit-learn, as `triage` uses it, and FAISS, on the rows that centres are fitted on; ten starts each."""
    fitted = values[:MOST_FITTED]
    with threadpool_limits(1):
        ours, seconds = timed(lambda: KMeans(k, n_init=10, random_state=0).fit(fitted))
    figures = {"sklearn_seconds": seconds, "sklearn_inertia": float(ours.inertia_)}
    settings = {"niter": 25, "nredo": 10, "seed": 1, "max_points_per_centroid": len(fitted)}
    theirs = faiss.Kmeans(DIMENSION, k, **settings)
    _, figures["faiss_seconds"] = timed(lambda: theirs.train(fitted))
    figures["faiss_inertia"] = float(theirs.index.search(fitted, 1)[0].sum())
    return figures


def main() -> None:
    """Measure; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=200_000, help="slices")
    parser.add_argument("--k", type=int, default=6, help="clusters of k-means")
    parser.add_argument("--dense", type=int, default=50_000, help="rows of DBSCAN, on 64 components")
    parser.add_argument("--references", type=int, default=3000, help="held-out and labelled images")
    arguments = parser.parse_args()
    values = mixture(arguments.n, spread=0.7)
    figures = search(values) | k_means(values, arguments.k)
    points = np.ascontiguousarray(values[: arguments.dense, :64])
    dense, figures["dbscan_seconds"] = timed(lambda: density_clusters(points, 10, 32, 0))
    figures |= {"dbscan_k": dense.k, "dbscan_noise_share": dense.noise_share}
    count = arguments.references
    held = References(np.arange(count).astype(str).astype(object), values[:count], np.full(count, "held_out", object))
    rows = (np.arange(arguments.n), values.astype(np.float16))
    ids = [str(row) for row in range(arguments.n)]
    figures["near_seconds"] = timed(lambda: pushed_out([rows], ids, held, 2.0))[1]
    facts = {"benchmark": "neighbours", "n": 1, "cores": os.cpu_count(), "slices": arguments.n, "k": arguments.k}
    print(json.dumps(facts | figures))


if __name__ == "__main__":
    main()
