"""The rehearsal's arithmetic: its plan from a pilot, and what it compares, on a pilot and a ledger that are made up."""

import importlib.util
import json
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType

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


def test_a_pilots_seconds_scaled_up_and_a_tenth_more_are_the_plan(rehearse: ModuleType) -> None:
    """4, 2 and 30 s on 100 slices are 16, 8 and 120 s on 400, and 158.4 s with a tenth done again."""
    plan = rehearse.planned(400, 100, {"ingest": 4.0, "embed": 2.0, "train": 30.0}, labels=40)
    ledger = {"node_eur": 0.0014, "label_eur": 22.0, "total_eur": 22.0014}
    found = rehearse.compared(plan, {"ingest": 17.6, "embed": 8.8, "train": 211.2}, ledger)
    assert found["planned_seconds"] == pytest.approx(158.4)
    assert found["stages"]["train"] == {"planned_seconds": 132.0, "actual_seconds": 211.2}
    assert found["actual_over_planned_seconds"] == pytest.approx(237.6 / 158.4)
    assert found["planned_label_eur"] == 22.0
    assert found["planned_node_eur"] == pytest.approx(158.4 / 3600 * 0.03)
    assert plan.bucket("labels") == 40 * Decimal("0.55")


def test_a_ledgers_seconds_are_those_of_its_entries_by_stage(rehearse: ModuleType, tmp_path: Path) -> None:
    entries = [
        {"step": step, "seconds": float(value)} for value, step in enumerate(("catalog", "embeddings", "triage"), 1)
    ]
    (tmp_path / "account").mkdir()
    (tmp_path / "account" / "ledger.json").write_text(json.dumps({"entries": [*entries, entries[2]]}))
    assert rehearse.ledger_of(tmp_path)[0] == {"ingest": 1.0, "embed": 2.0, "train": 6.0}


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
