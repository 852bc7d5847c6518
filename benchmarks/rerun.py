"""What a run costs in which nothing changed, against the run that made everything.

.venv/bin/python benchmarks/rerun.py --repeats 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = (
    "ingest.source.slices=240", "ingest.source.labelled=60", "pretrain.epochs=1", "retrain.finetune_epochs=1",
    "retrain.cross_validation.repeats=1", "pseudo_label.cross_validation.repeats=1", "acquire.budget_eur=11",
)  # fmt: skip


def run_seconds(output: Path) -> float:
    """Wall seconds of the loop on a small synthetic archive."""
    overrides = [argument for override in SMALL for argument in ("--set", override)]
    command = [sys.executable, "-m", "pipelines", "run", "--config", "configs/demo.yaml", "--output", str(output)]
    started = time.perf_counter()
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Run in new folders and again in the same ones; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    first, again = [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            output = Path(folder) / str(repeat)
            first.append(run_seconds(output))
            again.append(run_seconds(output))
    print(json.dumps({
        "benchmark": "rerun",
        "n": repeats,
        "cores": os.cpu_count(),
        "first_seconds": {"median": statistics.median(first), "min": min(first), "max": max(first)},
        "cached_seconds": {"median": statistics.median(again), "min": min(again), "max": max(again)},
        "cached_ratio": statistics.median(a / f for a, f in zip(again, first, strict=True)),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
