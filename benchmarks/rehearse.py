"""The loop on synthetic slices under simulated loss of spot nodes: what was planned from a pilot against what it took.

A pilot runs undisturbed; its seconds, scaled to the number of slices, make the plan. Then the same code runs on all
slices while its parent is killed with SIGKILL at seeded random instants and started again. A kill here ends the
processes but keeps the folder, as a spot node's loss keeps what stands in the object store. The ledger counts the
seconds of steps; a node is paid by the wall clock, which counts the start of processes as well: both are printed.

.venv/bin/python benchmarks/rehearse.py --slices 800 --kills 4
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from scanloop.money.plan import Plan, price_archive
from scanloop.money.plan_request import PlanRequest
from scanloop.money.prices import load_prices
from scanloop.money.throughput import SECONDS_PER_HOUR, Rate, Stage, ThroughputTable

ARCHIVE = 4_000_000
NODE, LABEL_EUR, BUDGET_EUR = "cpu-2core", "0.55", 22
SMALL = (
    "ingest.source.labelled=60", "pretrain.epochs=2", "retrain.finetune_epochs=1", "retrain.cross_validation.repeats=1",
    "pseudo_label.cross_validation.repeats=1", f"acquire.budget_eur={BUDGET_EUR}", f"account.node={NODE}",
)  # fmt: skip
STAGES: dict[str, Stage] = {"catalog": "ingest", "embeddings": "embed"}
"""Artifacts that are planned at a rate; the other steps are planned as hours of training."""
GROWING = {"encoder", "triage", "pseudo_labels", "evaluation"}
"""Those of the others that look at every slice: their hours are scaled up, those of steps on labels are not."""


def command(slices: int, output: Path) -> list[str]:
    """The pipeline as a user starts it."""
    overrides = (*SMALL, f"ingest.source.slices={slices}")
    options = [option for override in overrides for option in ("--set", override)]
    return [
        sys.executable,
        "-m",
        "pipelines",
        "run",
        "--config",
        "configs/demo.yaml",
        "--output",
        str(output),
        *options,
    ]


def run_killed(slices: int, output: Path, kills: int, longest: float, seed: int) -> tuple[int, float]:
    """Run to the end, killing the parent so often at most; the kills that struck, and the wall seconds of it all."""
    instants, done = random.Random(seed), 0  # noqa: S311  a schedule, no secret
    started = time.monotonic()
    while True:
        parent = subprocess.Popen(command(slices, output), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            wait = instants.uniform(2, max(longest, 4)) if done < kills else None
            if code := parent.wait(timeout=wait):
                raise SystemExit(f"the run ended with {code}; see {output / 'run.log'}")
            return done, time.monotonic() - started
        except subprocess.TimeoutExpired:
            parent.send_signal(signal.SIGKILL)
            done += parent.wait() == -signal.SIGKILL


def ledger_of(output: Path) -> dict[str, Any]:
    """The ledger of a run."""
    ledger: dict[str, Any] = json.loads((output / "account" / "ledger.json").read_text())
    return ledger


def stage_seconds(ledger: dict[str, Any], times: float = 1) -> dict[str, float]:
    """Seconds by stage, those of the steps that look at every slice taken so many times."""
    seconds = dict.fromkeys((*STAGES.values(), "train"), 0.0)
    for entry in ledger["entries"]:
        grows = entry["step"] in STAGES or entry["step"] in GROWING
        seconds[STAGES.get(entry["step"], "train")] += entry["seconds"] * (times if grows else 1)
    return seconds


def planned(slices: int, pilot: int, ledger: dict[str, Any]) -> Plan:
    """The plan of `scanloop plan` from a pilot's ledger, for compute and labels alone."""
    seconds = stage_seconds(ledger, slices / pilot)
    rates = tuple(
        Rate.model_validate({
            "stage": stage, "device": NODE, "encoder": "smallcnn" if stage == "embed" else None, "basis": "measured",
            "images_per_second": round(Decimal(slices) / Decimal(repr(seconds[stage])), 6), "n": 1,
            "as_of": time.strftime("%Y-%m-%d"), "source": f"pilot of {pilot} slices",
        })
        for stage in STAGES.values()
    )  # fmt: skip
    hours = Decimal(repr(seconds["train"])) / SECONDS_PER_HOUR
    request = PlanRequest.model_validate({
        "images": slices, "bytes_per_image": 64 * 64, "node": NODE, "encoder": "smallcnn", "months": 0,
        "labels": ledger["labels"], "label_eur": LABEL_EUR, "review_eur": 0, "reserve_share": 0,
        "train_node": NODE, "train_hours": hours, "train_cycles": 1,
    })  # fmt: skip
    return price_archive(request, load_prices(), ThroughputTable(rates=rates))


def compared(plan: Plan, ledger: dict[str, Any]) -> dict[str, Any]:
    """Planned against actual, by stage and in all, as far as the ledger counts: node time and labels."""
    seconds = stage_seconds(ledger)
    hours = {stage: plan.hours[stage] for stage in seconds}
    stages = {
        stage: {"planned_seconds": round(float(hours[stage] * SECONDS_PER_HOUR), 1), "actual_seconds": round(actual, 1)}
        for stage, actual in seconds.items()
    }
    planned_seconds, actual_seconds = float(sum(hours.values()) * SECONDS_PER_HOUR), sum(seconds.values())
    return {
        "stages": stages,
        "planned_seconds": round(planned_seconds, 1),
        "actual_seconds": round(actual_seconds, 1),
        "actual_over_planned_seconds": round(actual_seconds / planned_seconds, 3),
        "planned_node_eur": float(plan.bucket("compute")),
        "actual_node_eur": ledger["node_eur"],
        "planned_label_eur": float(plan.bucket("labels")),
        "actual_label_eur": ledger["label_eur"],
        "planned_eur": float(plan.bucket("compute") + plan.bucket("labels")),
        "actual_eur": ledger["total_eur"],
    }


def main() -> None:
    """Pilot, plan, run under kills; print what was planned and what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=800)
    parser.add_argument("--pilot", type=int, default=400, help="Slices of the undisturbed pilot")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, pilot_wall = run_killed(arguments.pilot, Path(folder) / "pilot", 0, 0, arguments.seed)
        plan = planned(arguments.slices, arguments.pilot, ledger_of(Path(folder) / "pilot"))
        longest = pilot_wall / 2
        kills, wall = run_killed(arguments.slices, Path(folder) / "run", arguments.kills, longest, arguments.seed)
        found = compared(plan, ledger_of(Path(folder) / "run"))
    print(json.dumps({
        "benchmark": "rehearse", "n": 1, "cores": os.cpu_count(), "slices": arguments.slices,
        "scale": f"1:{ARCHIVE / arguments.slices:g} of {ARCHIVE} slices", "pilot_slices": arguments.pilot,
        "pilot_wall_seconds": round(pilot_wall, 1), "kills": kills, "wall_seconds": round(wall, 1),
        "wall_node_eur": float(load_prices().of(NODE).eur_per_hour) * wall / SECONDS_PER_HOUR,
        "repeated_share_planned": float(plan.request.repeated_share), **found,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
