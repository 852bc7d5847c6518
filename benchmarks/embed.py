"""Images a second through the embedding engine, by encoder, with the share that decoding and preprocessing take.

.venv/bin/python benchmarks/embed.py --images 256 --repeats 5
"""

import argparse
import json
import os
import statistics
import time

import numpy as np

from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.engine import Engine
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Image

SIDES = {"smallcnn": 64, "squeezenet1_1": 224, "resnet18": 224}


def measure(name: str, images: list[Image], repeats: int) -> dict[str, float]:
    """Median rates of the whole engine and of its preprocessing alone."""
    preprocess = Preprocess(input_px=SIDES[name])
    engine = Engine(new_encoder(name, seed=0), preprocess, batch_size=64)
    engine(images[:64])
    whole, before = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        preprocess(images)
        between = time.perf_counter()
        engine(images)
        before.append(between - started)
        whole.append(time.perf_counter() - between)
    return {
        "images_per_second": len(images) / statistics.median(whole),
        "slowest": len(images) / max(whole),
        "fastest": len(images) / min(whole),
        "preprocess_share": statistics.median(b / w for b, w in zip(before, whole, strict=True)),
    }


def main() -> None:
    """Measure every encoder on noise of 256 pixels; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (256, 256), dtype=np.uint8) for _ in range(arguments.images)]
    figures = {name: measure(name, images, arguments.repeats) for name in SIDES}
    print(json.dumps({"benchmark": "embed", "n": arguments.repeats, "cores": os.cpu_count(), "encoders": figures}))


if __name__ == "__main__":
    main()
