"""Picking and judging clusters at scale, against the plain ways: k-center greedy, and the squared-distance silhouette.

.venv/bin/python benchmarks/bench_select.py --repeats 3

The plain loop of k-center greedy updates all distances by one matrix-vector product a pick. Each pick costs it the
same, so its time is that of the first picks, scaled up, in each repetition; one whole run of it gives the covering
radius. The brute-force silhouette compares some rows with all others by matrix products in float64; its time is scaled
up to all rows, what it prepares once is not counted.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from scanloop.acquisition.k_center import k_center_greedy
from scanloop.triage.silhouette import squared_silhouette
from scanloop.types import Float, Labels, Single

DIMENSION, COVERED, TIMED_PICKS, SILHOUETTE_K = 512, 100, 150, 6


def unit(values: Single) -> Single:
    """Rows of unit length."""
    rows: Single = values / np.linalg.norm(values, axis=1, keepdims=True)
    return rows


def mixture(n: int, spread: float, seed: int = 0, clusters: int = 200) -> Single:
    """Unit rows of clusters of uneven sizes, whose variance falls along the axes as in embeddings."""
    draw = np.random.default_rng(seed)
    scale = (np.arange(1, DIMENSION + 1) ** -0.5).astype(np.float32)
    size = draw.lognormal(size=clusters)
    centres = draw.standard_normal((clusters, DIMENSION), dtype=np.float32)
    values = centres[draw.choice(clusters, n, p=size / size.sum())]
    values += spread * draw.standard_normal((n, DIMENSION), dtype=np.float32)
    return unit(values * scale)


def isotropic(n: int, seed: int = 0) -> Single:
    """Unit rows in all directions alike, where nothing is near anything."""
    return unit(np.random.default_rng(seed).standard_normal((n, DIMENSION), dtype=np.float32))


def plain_k_center(points: Single, covered: Single, count: int) -> tuple[Labels, float]:
    """Picks and seconds of the plain loop, without what is covered from the start."""
    norms = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for point in covered:
        nearest = np.minimum(nearest, norms + point @ point - 2 * (points @ point))
    picked = []
    started = time.perf_counter()
    for _ in range(count):
        pick = int(nearest.argmax())
        picked.append(pick)
        nearest = np.minimum(nearest, norms + norms[pick] - 2 * (points @ points[pick]))
    return np.array(picked), time.perf_counter() - started


def radius(points: Single, centres: Single) -> float:
    """Largest distance of a point to its nearest centre, in float64."""
    wide = centres.astype(np.float64)
    furthest = 0.0
    for start in range(0, len(points), 4096):
        block = points[start : start + 4096].astype(np.float64)
        products = block @ wide.T
        squares = (block**2).sum(axis=1)[:, None] + (wide**2).sum(axis=1) - 2 * products
        furthest = max(furthest, float(squares.min(axis=1).max()))
    return float(np.sqrt(furthest))


def brute_silhouette(wide: Float, norms: Float, labels: Labels, rows: Labels) -> Float:
    """Squared-distance silhouette of some rows, each compared with every row."""
    member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)
    sizes, scores = member.sum(axis=0), []
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        means = (norms[part, None] + norms - 2 * wide[part] @ wide.T) @ member / sizes
        own = labels[part]
        inside = means[np.arange(len(part)), own] * sizes[own] / (sizes[own] - 1)
        means[np.arange(len(part)), own] = np.inf
        outside = means.min(axis=1)
        scores.append((outside - inside) / np.maximum(outside, inside))
    return np.concatenate(scores)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its seconds, once the threads of BLAS that spin after their last work are asleep."""
    time.sleep(0.2)
    started = time.perf_counter()
    made = work()
    return made, time.perf_counter() - started


def spread(values: list[float]) -> list[float]:
    """Median, least and greatest."""
    return [statistics.median(values), min(values), max(values)]


def k_center(n: int, count: int, repeats: int) -> dict[str, Any]:
    """Plain loop and look-ahead, in turn, on a mixture; the look-ahead alone on a tighter and on a wider set."""
    values = mixture(n + COVERED, spread=0.7)
    covered, points, groups = values[:COVERED], values[COVERED:], np.arange(n)
    plain, ours = [], []
    for _ in range(repeats):
        plain.append(plain_k_center(points, covered, TIMED_PICKS)[1] * count / TIMED_PICKS)
        (picked, _), seconds = timed(lambda: k_center_greedy(points, covered, groups, count))
        ours.append(seconds)
    expected, whole = plain_k_center(points, covered, count)
    radii = [radius(points, np.concatenate([covered, points[rows]])) for rows in (picked, expected)]
    others = {}
    for name, other in (("tight", mixture(n, spread=0.1)), ("isotropic", isotropic(n))):
        others[name] = timed(
            lambda other=other: k_center_greedy(other[COVERED:], other[:COVERED], groups[COVERED:], count)
        )[1]
    return {
        "kcenter_ratio": statistics.median(p / o for p, o in zip(plain, ours, strict=True)),
        "kcenter_radius_ratio": radii[0] / radii[1],
        "kcenter_same_picks": float((picked == expected).mean()),
        "kcenter_n": n,
        "kcenter_picks": count,
        "kcenter_seconds": spread(ours),
        "kcenter_plain_seconds_scaled": spread(plain),
        "kcenter_plain_seconds_whole_run": whole,
        "kcenter_seconds_of_other_sets": others,
    }


def silhouette(n: int, rows: int, repeats: int) -> dict[str, Any]:
    """Both silhouettes on squared distances, in turn, and scikit-learn's on plain ones on a sample."""
    points = mixture(n, spread=0.7, seed=1, clusters=SILHOUETTE_K)
    labels: npt.NDArray[np.int64] = KMeans(SILHOUETTE_K, random_state=0).fit_predict(points).astype(np.int64)
    chosen = np.sort(np.random.default_rng(0).choice(n, rows, replace=False))
    wide = points.astype(np.float64)
    norms, brute, ours = (wide**2).sum(axis=1), [], []
    for _ in range(repeats):
        expected, seconds = timed(lambda: brute_silhouette(wide, norms, labels, chosen))
        brute.append(seconds * n / rows)
        scores, seconds = timed(lambda: squared_silhouette(points, labels, SILHOUETTE_K))
        ours.append(seconds)
    sample = np.random.default_rng(0).choice(n, min(n, 5000), replace=False)
    return {
        "silhouette_max_abs_error": float(np.abs(scores[chosen] - expected).max()),
        "silhouette_ratio": statistics.median(b / o for b, o in zip(brute, ours, strict=True)),
        "silhouette_n": n,
        "silhouette_rows_of_brute_force": rows,
        "silhouette_seconds": spread(ours),
        "silhouette_brute_seconds_scaled": spread(brute),
        "silhouette_mean_squared": float(scores.mean()),
        "silhouette_mean_euclidean_of_5000": float(silhouette_score(points[sample], labels[sample])),
    }


def main() -> None:
    """Measure both; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=200_000, help="points to pick from")
    parser.add_argument("--picks", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the silhouette")
    parser.add_argument("--brute-rows", type=int, default=1000, help="rows that brute force is timed on")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    figures = silhouette(arguments.rows, arguments.brute_rows, arguments.repeats)
    figures |= k_center(arguments.n, arguments.picks, arguments.repeats)
    facts = {"benchmark": "select", "n": arguments.repeats, "cores": os.cpu_count(), "dimension": DIMENSION}
    print(json.dumps(facts | figures))


if __name__ == "__main__":
    main()
