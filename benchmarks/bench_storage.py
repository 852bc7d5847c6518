"""Small objects of S3, listed and read: through the pool that fetches ahead against one at a time.

Starts an S3 server of its own (moto's, in another process), or takes one that is there:
    .venv/bin/python benchmarks/bench_storage.py [--objects 10000] [--endpoint-url URL] [--latency-ms 20]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scanloop.archive.ahead import THREADS, fetch_ahead
from scanloop.archive.readers.files import later, list_files
from scanloop.archive.readers.record import Later, RawImage
from scanloop.storage.s3 import new_client
from scanloop.storage.store import open_store

BUCKET, BYTES = "scanloop-bench", 24_700
"""Size of a slice: the mean of the brain archive's JPEG files."""


def main() -> None:
    """Print rates and their ratio as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--endpoint-url")
    parser.add_argument(
        "--latency-ms", type=float, default=0.0, help="waited before each read, as a distant store does"
    )
    parser.add_argument("--singles", type=int, default=1000, help="objects read one at a time, for the other rate")
    options = parser.parse_args()
    process = None
    if options.endpoint_url is None:
        os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        command = [sys.executable, "-m", "moto.server", "-p", "17799"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tempfile.gettempdir()
        )
        options.endpoint_url = "http://127.0.0.1:17799"
    try:
        fill(options.endpoint_url, options.objects)
        print(json.dumps(measured(options), indent=1))
    finally:
        if process is not None:
            process.terminate()


def fill(endpoint_url: str, count: int) -> None:
    """Put the objects that are missing."""
    client = new_client(endpoint_url)
    for _ in range(50):
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except Exception as error:  # not up yet, or there already
            if "BucketAlready" in str(error):
                break
            time.sleep(0.2)
    payload = bytes(number % 251 for number in range(BYTES))
    with ThreadPoolExecutor(16) as pool:
        there = {entry.key for entry in open_store(f"s3://{BUCKET}", endpoint_url).objects()}
        names = [f"raw/{number // 1000:04d}/{number:07d}.jpg" for number in range(count)]
        keys = [name for name in names if name not in there]
        list(pool.map(lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=payload), keys))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and rates of listing, of reading through the pool and of reading one at a time, taken in turns."""
    rates: dict[str, list[float]] = {"list": [], "pool": [], "one at a time": []}
    for _ in range(options.repeats):
        start = time.perf_counter()
        files = list_files(f"s3://{BUCKET}/raw", options.endpoint_url)
        rates["list"].append(len(files) / (time.perf_counter() - start))
        images = [RawImage(file.inside, delayed(later(file), options.latency_ms / 1000)) for file in files]
        start = time.perf_counter()
        count = sum(len(image.payload) == BYTES for image in fetch_ahead(images))  # type: ignore[arg-type]
        rates["pool"].append(count / (time.perf_counter() - start))
        singles = images[: options.singles]
        start = time.perf_counter()
        count = sum(len(image.loaded().payload) == BYTES for image in singles)  # type: ignore[arg-type]
        rates["one at a time"].append(count / (time.perf_counter() - start))
    return {
        "objects": len(files), "bytes_each": BYTES, "threads": THREADS, "singles": options.singles,
        "objects_per_second": {
            name: {"median": round(statistics.median(own), 1), "least": round(min(own), 1), "most": round(max(own), 1)}
            for name, own in rates.items()
        },
        "megabytes_per_second": {
            name: round(statistics.median(rates[name]) * BYTES / 1e6, 2) for name in ("pool", "one at a time")
        },
        "latency_ms": options.latency_ms,
        "ratio": round(statistics.median(rates["pool"]) / statistics.median(rates["one at a time"]), 2),
        "n": options.repeats,
    }  # fmt: skip


def delayed(payload: Later, seconds: float) -> Later:
    """The same file, answered later."""

    def load() -> bytes:
        time.sleep(seconds)
        return payload.load()

    return Later(payload.nbytes, load) if seconds else payload


if __name__ == "__main__":
    main()
