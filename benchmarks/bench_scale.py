"""Ingest and embed archives of growing size: time, peak memory and objects, and what four million slices would cost.

.venv/bin/python benchmarks/bench_scale.py --sizes 10000 100000 400000 --px 32

Synthetic slices are drawn as they are read, so the seconds of ingest hold the drawing; `draw_seconds` is what drawing
alone takes. Each step runs in a process of its own, whose peak memory is that of the step. Seconds count from the call
of the step: imports are left out, as they would hide growth in the small archives.

The euros are those of `scanloop plan` for 4,000,000 images of 40 kB, one line for each type of node, with the rates of
the table of throughput: what was measured there, published or assumed is said in the line.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ARCHIVE, BYTES_PER_IMAGE = 4_000_000, 40_000
MOST_OBJECTS = 5000
SHARD_SLICES = 4096
NODES = ("cpu-2core", "t4", "l4", "a10g")


class Archive(NamedTuple):
    """A synthetic archive: its slices, their side in pixels, and slices a shard."""

    slices: int
    px: int
    shard_slices: int

    def config(self) -> Any:
        """As ingest reads it, some of it labelled."""
        from scanloop.config import IngestConfig
        from scanloop.sources import SyntheticSource

        source = SyntheticSource(slices=self.slices, size_px=self.px, labelled=100)
        return IngestConfig(source=source, short_side_px=self.px, shard_slices=self.shard_slices, test_share=0.05)


def draw(archive: Archive) -> float:
    """Seconds that the reader alone takes."""
    from scanloop.archive.readers import read

    config = archive.config()
    started = time.perf_counter()
    for _ in read(config):
        pass
    return time.perf_counter() - started


def ingest_step(archive: Archive, folder: Path) -> float:
    """Seconds of the step."""
    from scanloop.steps.ingest import ingest

    config = archive.config()
    started = time.perf_counter()
    ingest(config, output=folder / "catalog")
    return time.perf_counter() - started


def encoder_step(archive: Archive, folder: Path) -> float:
    """A small encoder, trained for a moment: embed reads it as it would any other."""
    from scanloop.config import PretrainConfig
    from scanloop.steps.pretrain import pretrain

    config = PretrainConfig(input_px=archive.px, epochs=1, max_slices=256)
    pretrain(config, catalog=folder / "catalog", output=folder / "encoder")
    return 0.0


def embed_step(folder: Path) -> float:
    """Seconds of the step."""
    from scanloop.config import EmbedConfig
    from scanloop.steps.embed import embed

    encoder = folder / "encoder"
    config = EmbedConfig(precision="bf16")
    started = time.perf_counter()
    embed(config, catalog=folder / "catalog", encoder=encoder, output=folder / "embeddings")
    return time.perf_counter() - started


def _alone(work: Callable[..., float], arguments: tuple[Any, ...], results: Any) -> None:
    seconds = work(*arguments)
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def alone(work: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """Seconds that the work says it took, and peak MB of a process that did nothing else."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_alone, args=(work, arguments, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} ended with {process.exitcode}")
    found: tuple[float, float] = results.get()
    return found


def measure(archive: Archive) -> dict[str, float]:
    """One archive: seconds, peak MB and objects of each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_seconds, _ = alone(draw, archive)
        ingest_seconds, ingest_mb = alone(ingest_step, archive, folder)
        alone(encoder_step, archive, folder)
        embed_seconds, embed_mb = alone(embed_step, folder)
        objects = sum(path.is_file() for path in folder.rglob("*"))
        stored = sum(path.stat().st_size for path in (folder / "catalog" / "shards").iterdir())
    return {
        "slices": archive.slices,
        "draw_seconds": draw_seconds,
        "ingest_seconds": ingest_seconds,
        "ingest_peak_mb": ingest_mb,
        "embed_seconds": embed_seconds,
        "embed_peak_mb": embed_mb,
        "objects": objects,
        "shard_bytes": stored,
    }


def exponent(rows: list[dict[str, float]], name: str) -> float:
    """Slope of the logarithm of a figure over that of the slices, by least squares: 1 is linear."""
    return float(np.polyfit(*(np.log([row[column] for row in rows]) for column in ("slices", name)), 1)[0])


def flatness(rows: list[dict[str, float]], name: str) -> float:
    """Largest over least of a figure."""
    return max(row[name] for row in rows) / min(row[name] for row in rows)


def objects_at(slices: int, rows: list[dict[str, float]]) -> int:
    """Objects that so many slices take: a constant, and some for each shard."""
    shards = [math.ceil(row["slices"] / SHARD_SLICES) for row in rows]
    slope, constant = np.polyfit(shards, [row["objects"] for row in rows], 1)
    return math.ceil(constant + slope * math.ceil(slices / SHARD_SLICES))


def prices() -> dict[str, Any]:
    """Euros of embedding the archive, requests included, by type of node, each with what it rests on."""
    from scanloop.money.plan import price_archive
    from scanloop.money.plan_request import PlanRequest
    from scanloop.money.prices import load_prices
    from scanloop.money.throughput import load_throughput

    found = {}
    for node in NODES:
        device = {"node": node} if node.startswith("cpu") else {"gpu": node}
        request = PlanRequest.model_validate({
            "images": ARCHIVE, "bytes_per_image": BYTES_PER_IMAGE, "shard_images": SHARD_SLICES, **device,
        })  # fmt: skip
        plan = price_archive(request, load_prices(), load_throughput()).as_json()
        lines = [line for line in plan["lines"] if line["name"].startswith("embed")]
        euros = round(sum(line["euros"] for line in lines), 3)
        found[node] = {"eur": euros, "hours": round(plan["hours"]["embed"], 2), "lines": lines}
    return found


def main() -> None:
    """Measure each size in turn; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 400_000])
    parser.add_argument("--px", type=int, default=32, help="side of a slice")
    parser.add_argument("--shard-slices", type=int, default=SHARD_SLICES)
    arguments = parser.parse_args()
    rows = []
    for slices in sorted(arguments.sizes):
        rows.append(measure(Archive(slices, arguments.px, arguments.shard_slices)))
        print(json.dumps(rows[-1]), flush=True)
    figures: dict[str, Any] = {"benchmark": "bench_scale", "px": arguments.px, "cores": len(os.sched_getaffinity(0))}
    figures["rows"] = rows
    for step in ("ingest", "embed"):
        figures[f"{step}_exponent"] = round(exponent(rows, f"{step}_seconds"), 3)
        figures[f"{step}_memory_ratio"] = round(flatness(rows, f"{step}_peak_mb"), 3)
        figures[f"{step}_images_per_second"] = round(rows[-1]["slices"] / rows[-1][f"{step}_seconds"], 1)
    figures["objects_at_4m"] = objects_at(ARCHIVE, rows)
    figures["within_objects"] = figures["objects_at_4m"] <= MOST_OBJECTS
    figures["embedding_eur_at_4m"] = prices()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
