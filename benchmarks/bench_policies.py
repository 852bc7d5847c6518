"""Time and memory of each acquisition policy on a large pool: so many labels out of so many images.

.venv/bin/python benchmarks/bench_policies.py --n 1000000 --labels 3000

The pool is a mixture of clusters of uneven sizes in 512 dimensions, float16, with a linear head. Each policy runs in a
process of its own, so that memory is its own: "grown_mib" is what the process held at most beyond the pool.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from bench_select import DIMENSION, mixture

KNOWN, BREADTH, CLASSES = 100, 4, 2


def measured(name: str, n: int, labels: int, answer: Connection) -> None:
    """Send seconds, MiB and the number of picks of one policy."""
    from scanloop.acquisition.policy import select
    from scanloop.acquisition.situation import Situation, unit_rows

    sizes = [(start, min(100_000, n - start)) for start in range(0, n, 100_000)]
    vectors = np.concatenate([mixture(size, 0.7, start).astype(np.float16) for start, size in sizes])
    draw = np.random.default_rng(1)
    weights = draw.normal(size=(DIMENSION, CLASSES)) * 20

    def head(rows: Any) -> Any:
        scores = np.empty((len(rows), CLASSES))
        for start in range(0, len(rows), 4096):
            scores[start : start + 4096] = rows[start : start + 4096].astype(np.float64) @ weights
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    known = draw.choice(n, KNOWN, replace=False)
    situation = Situation(
        head(vectors), vectors, np.arange(n), np.ones(n, dtype=bool), unit_rows(vectors, known),
        np.arange(KNOWN) % CLASSES, head, BREADTH, 0,
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = select(situation, labels, name, 0.05, 2)
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answer.send({"seconds": round(seconds, 1), "grown_mib": round(grown), "picked": len(found.rows)})


def main() -> None:
    """Measure each policy; print the figures as JSON."""
    from scanloop.acquisition.policy import POLICIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="images of the pool")
    parser.add_argument("--labels", type=int, default=3000)
    parser.add_argument("--policies", nargs="+", choices=sorted(POLICIES), default=sorted(POLICIES))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "policies", "n": arguments.n, "labels": arguments.labels}
    figures["cores"] = os.cpu_count()
    for name in arguments.policies:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        work = multiprocessing.get_context("spawn").Process(
            target=measured, args=(name, arguments.n, arguments.labels, theirs)
        )
        work.start()
        theirs.close()
        figures[name] = ours.recv()
        work.join()
        print(json.dumps({name: figures[name]}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
