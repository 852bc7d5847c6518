"""Slices a second from shards to stored vectors, on all cores, and what its stages take: what `scanloop plan` rests on.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_embed_shards.py --px 256 --repeats 3

The brain MRI archive, ingested at the side given, in shards of 1,000, embedded by ResNet-18 at 224 pixels with
seeded weights: reading, decoding PNG, resizing, the network, writing. Each repetition embeds all into a new store.
Starting (calibration, comparison with float32, compiling) is told beside it: millions of slices pay it once a task.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

SHARD_SLICES = 1000
DECODED = 256


def data_dir() -> Path:
    """Folder of the real images."""
    return Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def new_catalog(folder: Path, px: int) -> Path:
    """Catalog of the archive, its slices' short side at most `px`."""
    from scanloop.config import IngestConfig
    from scanloop.sources import FolderSource
    from scanloop.steps.ingest import ingest

    source = FolderSource(
        path=str(data_dir() / "brain_mri_oc.tar"),
        labelled_dir="avec_labels",
        unlabelled_dir="sans_label",
        deidentify=False,
    )
    ingest(IngestConfig(source=source, short_side_px=px, shard_slices=SHARD_SLICES), output=folder / "catalog")
    return folder / "catalog"


def new_artifact(folder: Path, px: int) -> Path:
    """Encoder artifact of a ResNet-18 with seeded weights."""
    from scanloop.artifacts import write_bytes, write_json
    from scanloop.embedding.encoders import new_encoder, write_encoder
    from scanloop.embedding.preprocess import Preprocess
    from scanloop.provenance import file_digest

    artifact = folder / "encoder"
    write_encoder(artifact, new_encoder("resnet18", seed=0))
    write_bytes(artifact / "loss.csv", b"epoch,loss\n")
    facts = {"encoder": "resnet18", "preprocess": asdict(replace(Preprocess(), archive_px=px))}
    write_json(artifact / "encoder.json", facts | {"digest": file_digest(artifact / "encoder.safetensors")})
    return artifact


def embed_once(precision: str, catalog: Path, encoder: Path, store: Path) -> tuple[float, float, Any]:
    """Seconds to start, slices a second after that, and how faithful the precision is."""
    from scanloop.config import EmbedConfig
    from scanloop.embedding.ranges import Maker, shards_of

    started = time.perf_counter()
    maker = Maker(EmbedConfig(precision=precision, min_cosine=0.9), catalog, encoder, store)  # type: ignore[arg-type]
    ready = time.perf_counter()
    made = maker.fill(shards_of(catalog), lambda _: None)
    return ready - started, made / (time.perf_counter() - ready), maker.fidelity[precision]  # type: ignore[index]


def png_milliseconds(catalog: Path) -> tuple[float, float]:
    """Milliseconds of one core to read and decode a slice, and the bytes of its PNG."""
    from scanloop.archive.shards import read_slice
    from scanloop.embedding.ranges import shards_of

    places = next(shards_of(catalog)).locations[:DECODED]
    least = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for place in places:
            read_slice(catalog, place)
        least = min(least, time.perf_counter() - started)
    return 1000 * least / len(places), statistics.mean(place.length for place in places)


def main() -> None:
    """Measure; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog, encoder = new_catalog(folder, arguments.px), new_artifact(folder, arguments.px)
        png_ms, png_bytes = png_milliseconds(catalog)
        runs = [
            embed_once(arguments.precision, catalog, encoder, folder / f"store-{number}")
            for number in range(arguments.repeats)
        ]
    rates = [rate for _, rate, _ in runs]
    facts = {
        "benchmark": "bench_embed_shards",
        "n": arguments.repeats,
        "cores": len(os.sched_getaffinity(0)),
        "px": arguments.px,
        "precision": arguments.precision,
        "images_per_second": statistics.median(rates),
        "images_per_second_range": [min(rates), max(rates)],
        "start_seconds": statistics.median(seconds for seconds, _, _ in runs),
        "png_ms": png_ms,
        "png_bytes": png_bytes,
        "fidelity": vars(runs[0][2]),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
