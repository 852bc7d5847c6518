"""Slices a second that are read from shards, decoded and resized for an encoder: what a GPU's host must keep up with.

.venv/bin/python benchmarks/prepare.py --catalog runs/brain/catalog --repeats 5
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_table
from scanloop.config import IngestConfig, SyntheticSource
from scanloop.embedding.preprocess import Preprocess
from scanloop.steps.ingest import ingest


def measure(catalog: Path, preprocess: Preprocess, repeats: int) -> dict[str, float]:
    """Rates over all shards of a catalog, one process, as the engine prepares them today."""
    manifest = read_table(catalog, "manifest")
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _, _, images in iterate_shards(catalog, manifest):
            for first in range(0, len(images), 64):
                preprocess(images[first : first + 64])
        rates.append(len(manifest) / (time.perf_counter() - started))
    return {"images_per_second": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}


def main() -> None:
    """Measure on a catalog, or on synthetic slices of 256 pixels; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = arguments.catalog or Path(folder) / "catalog"
        if arguments.catalog is None:
            ingest(IngestConfig(source=SyntheticSource(slices=512, size_px=256)), output=catalog)
        slices = len(read_table(catalog, "manifest"))
        size = sum(path.stat().st_size for path in (catalog / "shards").iterdir())
        figures = measure(catalog, Preprocess(input_px=224), arguments.repeats)
    facts = {"benchmark": "prepare", "n": arguments.repeats, "cores": os.cpu_count(), "slices": slices}
    print(json.dumps(facts | {"shard_bytes_per_slice": size / slices} | figures))


if __name__ == "__main__":
    main()
