"""Slices a second of one processor in self-supervised training: smallcnn at 64 pixels, method and precision in turn.

The time is the processor's, so that what else runs on the machine counts for less.

.venv/bin/python benchmarks/bench_pretrain.py --repeats 3 --slices 1024
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "simclr": {},
    "simclr, three channels": {"channels": 3},
    "simclr, bf16": {"precision": "bf16"},
    "simclr, bf16, average": {"precision": "bf16", "ema_decay": 0.999},
    "moco": {"method": "moco"},
    "moco, bf16": {"method": "moco", "precision": "bf16"},
}


def rate(slices: int, side: int, channels: int = 1, **settings: Any) -> float:
    """Slices a second of processor time, over one epoch with its checkpoint."""
    import torch

    from scanloop.config import PretrainConfig
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.weights import load_weights
    from scanloop.pretraining.trainer import train_encoder

    torch.set_num_threads(1)
    grey = torch.rand(slices, 1, side, side, generator=torch.Generator().manual_seed(0))
    images = (grey * 255).byte().expand(-1, channels, -1, -1).contiguous()
    config = PretrainConfig(input_px=side, epochs=1, batch_size=128, **settings)
    encoder = new_encoder(config.encoder, 0)
    preprocess = load_weights(encoder, None, side)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train_encoder(encoder, images, preprocess, config, Path(folder) / "checkpoint")
        return slices / (time.process_time() - start)


def main() -> None:
    """Print the rates, and as last line JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slices", type=int, default=1024)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    rate(128, arguments.side)  # the first use of a kernel is slower
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.repeats):
        for name, settings in WAYS.items():
            found[name].append(round(rate(arguments.slices, arguments.side, **settings), 1))
            print(f"{name}: {found[name][-1]} slices a second", flush=True)
    medians = {name: {"median": statistics.median(rates), "all": rates} for name, rates in found.items()}
    print(json.dumps({"benchmark": "pretrain", "slices_a_second": medians, "n": arguments.repeats}))


if __name__ == "__main__":
    main()
