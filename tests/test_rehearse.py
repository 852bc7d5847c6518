"""The rehearsal's arithmetic: its plan from a pilot, and what it compares, on a pilot and a ledger that are made up."""

import importlib.util
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rehearse() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rehearse", ROOT / "benchmarks" / "rehearse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rehearse"] = module
    spec.loader.exec_module(module)
    return module


def ledger(**seconds: float) -> dict[str, Any]:
    entries = [{"step": step, "seconds": value} for step, value in seconds.items()]
    return {"entries": entries, "labels": 40, "node_eur": 0.0014, "label_eur": 22.0, "total_eur": 22.0014}


def test_a_pilots_seconds_scaled_up_and_a_tenth_more_are_the_plan(rehearse: ModuleType) -> None:
    """On 100 slices 4, 2, 20 and 10 s; on 400 slices 16, 8, 80 and the same 10 s on labels; a tenth is done again."""
    plan = rehearse.planned(400, 100, ledger(catalog=4, embeddings=2, encoder=20, bundle=10))
    found = rehearse.compared(plan, ledger(catalog=17.6, embeddings=8.8, encoder=100, bundle=11.2))
    assert found["planned_seconds"] == pytest.approx((16 + 8 + 80 + 10) * 1.1)
    assert found["stages"]["train"] == {"planned_seconds": 99.0, "actual_seconds": 111.2}
    assert found["actual_over_planned_seconds"] == pytest.approx(137.6 / 125.4, abs=1e-3)
    assert found["planned_label_eur"] == 22.0
    assert found["planned_node_eur"] == pytest.approx(125.4 / 3600 * 0.03)
    assert plan.bucket("labels") == 40 * Decimal("0.55")


def test_seconds_are_told_by_stage_and_those_that_grow_are_scaled(rehearse: ModuleType) -> None:
    once = ledger(catalog=1, embeddings=2, triage=3, bundle=4)
    assert rehearse.stage_seconds(once) == {"ingest": 1, "embed": 2, "train": 7}
    assert rehearse.stage_seconds(once, 10) == {"ingest": 10, "embed": 20, "train": 34}


def test_a_run_is_killed_and_started_again_until_it_ends(
    rehearse: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the pipeline: a process that sleeps until it was killed twice, and then ends."""
    said = tmp_path / "said"
    code = (
        f"import time; log = open({str(said)!r}, 'a+'); log.write('x'); log.flush(); log.seek(0); "
        "time.sleep(9 * (len(log.read()) < 3))"
    )
    monkeypatch.setattr(rehearse, "command", lambda slices, output: [sys.executable, "-c", code])
    kills, wall = rehearse.run_killed(1, tmp_path, 5, 0, seed=1)
    assert said.read_text() == "xxx"
    assert 2 <= kills < 5, "more than two only if a process was killed before it wrote"
    assert wall > 4
    monkeypatch.setattr(rehearse, "command", lambda slices, output: [sys.executable, "-c", "raise SystemExit(6)"])
    with pytest.raises(SystemExit, match="ended with 6"):
        rehearse.run_killed(1, tmp_path, 5, 0, seed=1)
