"""The exporter on real artifacts and over HTTP, and under a real Prometheus with the real alerts."""

import json
import logging
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chain import PLANS, Chain
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from watched import FINISHED, artifact, labels_in, make_run, parse, scrape, value

from monitoring.__main__ import main
from monitoring.exporter import registry_of
from monitoring.metrics import METRICS
from scanloop.artifacts import read_table, write_bytes, write_json, write_table
from scanloop.config import AccountConfig, DetectDriftConfig
from scanloop.errors import ConfigError
from scanloop.steps.account import account
from scanloop.steps.detect_drift import detect_drift
from scanloop.steps.pseudo_label import pseudo_label

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, seconds: float = 20) -> str:
    """Body at an address, as soon as a server answers there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_every_metric_of_a_run_says_what_its_artifacts_say(tmp_path: Path) -> None:
    make_run(tmp_path / "demo")
    samples = scrape(tmp_path)
    expected = {
        "drift_score": 0.4, "drift_threshold": 0.2, "drift_detected": 1, "spend_euros": 91.5, "spend_cap_euros": 100,
        "queue_labels": 3, "queue_price_euros": 2.2, "pseudo_label_pool": 5, "pseudo_label_candidates": 2,
        "pseudo_label_promoted": 2, "holdout_f1_lower_bound": 0.81, "run_unreadable": 0,
        "pool_confidence_count": 200, "pool_confidence_sum": 150,
    }  # fmt: skip
    assert {name: value(samples, name) for name in expected} == pytest.approx(expected)
    assert value(samples, "pool_confidence", quantile="0.5") == 0.7
    found = {reason: value(samples, "quarantined_images", reason=reason) for reason in ("truncated", "too_small")}
    assert found == {"truncated": 2, "too_small": 1}
    assert value(samples, "quarantined_images", reason="empty_file") == 0
    age = value(samples, "artifact_age_seconds", artifact="queue")
    assert age == pytest.approx(time.time() - FINISHED, abs=60)


def test_every_family_is_exposed_and_promtool_finds_no_fault_in_the_page(tmp_path: Path) -> None:
    make_run(tmp_path / "demo")
    text = generate_latest(registry_of(tmp_path)).decode()
    assert {family.name for family in text_string_to_metric_families(text) if family.samples} == {
        metric.name for metric in METRICS
    }
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_running_exporter_answers_over_http_and_sees_a_new_run(tmp_path: Path) -> None:
    make_run(tmp_path / "demo")
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with running([sys.executable, "-m", "monitoring", "--runs", str(tmp_path), "--port", str(port)]):
        assert value(parse(fetch(url)), "spend_euros") == 91.5
        make_run(tmp_path / "second")
        assert value(parse(fetch(url)), "spend_euros", run="second") == 91.5


def test_once_prints_the_page_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "demo")
    assert main(["--runs", str(tmp_path), "--once"]) == 0
    assert value(parse(capsys.readouterr().out), "queue_labels") == 3


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "python -m monitoring --runs runs --once" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(tmp_path / "nowhere"), "--once"]) == ConfigError.exit_code
    assert "no such folder" in capsys.readouterr().err


def test_a_taken_port_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--runs", str(tmp_path), "--port", str(taken.getsockname()[1])]) == ConfigError.exit_code
    assert "give another --port" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "payload"), [
    ("queue/queue.parquet", b"PAR1 half"), ("account/ledger.json", b"{"), ("drift/drift.json", b'{"score": "high"}'),
    ("evaluation/metrics.json", b"[]"), ("catalog/run.json", b""), ("labels/artifact.json", None),
    ("pseudo_labels/pseudo_labels.parquet", None), ("pseudo_labels/certificate.json", b"{}"),
])  # fmt: skip
def test_a_broken_run_is_reported_and_the_rest_is_exposed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, payload: bytes | None
) -> None:
    make_run(tmp_path / "whole")
    path = make_run(tmp_path / "demo") / name
    path.unlink() if payload is None else path.write_bytes(payload)
    with caplog.at_level(logging.WARNING, "scanloop"):
        samples = scrape(tmp_path)
    assert (value(samples, "run_unreadable"), value(samples, "run_unreadable", run="whole")) == (1, 0)
    assert f"run demo: {name.split('/', maxsplit=1)[0]} cannot be read" in caplog.text
    assert value(samples, "spend_euros", run="whole") == 91.5
    kept = {"spend_euros": "account", "pseudo_label_promoted": "pseudo_labels", "holdout_f1_lower_bound": "evaluation"}
    for metric, source in kept.items():
        assert (value(samples, metric) is None) == (source == name.split("/", maxsplit=1)[0])


def test_a_fault_is_logged_once_and_not_at_every_scrape(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (make_run(tmp_path / "demo") / "account" / "ledger.json").write_bytes(b"{")
    registry = registry_of(tmp_path)
    with caplog.at_level(logging.WARNING, "scanloop"):
        for _ in range(3):
            generate_latest(registry)
    assert caplog.text.count("account cannot be read") == 1


def test_new_labels_shorten_the_queue_at_the_next_scrape(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo")
    registry = registry_of(tmp_path)
    assert value(parse(generate_latest(registry).decode()), "queue_labels") == 3
    labels_in(run, ["a", "b", "d"])
    samples = parse(generate_latest(registry).decode())
    assert (value(samples, "queue_labels"), value(samples, "queue_price_euros")) == (1, 0.55)


def test_an_artifact_in_the_making_and_a_folder_without_artifacts_are_no_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "demo")
    write_bytes(tmp_path / "demo" / ".bundle.partial" / "bundle.json", b"{")
    (tmp_path / "notes").mkdir()
    write_bytes(tmp_path / "README", b"")
    samples = scrape(tmp_path)
    assert {dict(labels)["run"] for _, labels in samples} == {"demo"}
    assert value(samples, "run_unreadable") == 0


def test_one_run_s_folder_is_read_as_that_run(tmp_path: Path) -> None:
    make_run(tmp_path / "demo")
    assert value(scrape(tmp_path / "demo"), "spend_euros") == 91.5


def test_an_unknown_drift_is_absent_and_not_zero(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo")
    nothing: dict[str, Any] = {"n": 0, "mean": None, "quantiles": {}}
    unknown = {"score": None, "threshold": 0.2, "drifted": None, "current": nothing}
    write_json(run / "drift" / "drift.json", unknown)
    samples = scrape(tmp_path)
    assert value(samples, "drift_threshold") == 0.2
    assert not [name for name, _ in samples if name.startswith(("scanloop_drift_detected", "scanloop_drift_score"))]
    assert value(samples, "run_unreadable") == 0


def test_what_account_and_detect_drift_write_is_what_the_exporter_reads(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    write_table(run / "catalog", "manifest", pd.DataFrame({"slice_id": ["a"]}))
    write_table(run / "catalog", "quarantine.parquet", pd.DataFrame({"uri": [], "reason": []}))
    table = pd.DataFrame({"slice_id": [f"s{index}" for index in range(60)], "side": ["reference", "pool"] * 30})
    write_table(run / "evaluation", "confidence.parquet", table.assign(confidence=0.9, positive=True))
    arms = {"supervised": {"macro_f1": {"low": 0.7}}}
    facts = {"arms": arms, "deployed_arm": "supervised", "holdout": {"kind": "test"}}
    write_json(run / "evaluation" / "metrics.json", facts)
    for kind in ("catalog", "evaluation"):
        artifact(run, kind)
    write_json(run / "catalog" / "run.json", {"seconds": 36000.0, "finished": FINISHED})
    account(AccountConfig(cap_eur=10), catalog=run / "catalog", output=run / "account")
    detect_drift(DetectDriftConfig(), evaluation=run / "evaluation", output=run / "drift")
    samples = scrape(tmp_path)
    found = {name: value(samples, name) for name in ("spend_euros", "spend_cap_euros", "drift_score", "drift_detected")}
    assert found == {"spend_euros": 0.3, "spend_cap_euros": 10, "drift_score": 0, "drift_detected": 0}
    assert value(samples, "pool_confidence", quantile="0.5") == pytest.approx(0.9)
    assert value(samples, "run_unreadable") == 0


@pytest.mark.parametrize("min_f1", [0.0, 1.0])
def test_what_pseudo_label_writes_is_counted_by_slice_however_many_copies_there_are(
    chain: Chain, tmp_path: Path, min_f1: float
) -> None:
    config = PLANS["pseudo_labels"][1].model_copy(update={"min_f1": min_f1})
    inputs = chain.inputs("catalog", "embeddings", "triage", "labels")
    pseudo_label(config, **inputs, output=tmp_path / "demo" / "pseudo_labels")
    rows = read_table(tmp_path / "demo" / "pseudo_labels", "pseudo_labels.parquet")
    slices = rows.drop_duplicates("slice_id")
    refused = slices["reason"] == "refused by the hold-out gate"
    expected = {
        "pseudo_label_pool": (~slices["reason"].isin(["labelled", "held out with its group"])).sum(),
        "pseudo_label_candidates": (refused | slices["promoted"]).sum(),
        "pseudo_label_promoted": slices["promoted"].sum(),
    }
    samples = scrape(tmp_path)
    assert {name: value(samples, name) for name in expected} == expected
    assert len(slices) < len(rows), "the archive holds copies"
    assert bool(expected["pseudo_label_promoted"]) == (min_f1 == 0)


@pytest.mark.integration
def test_a_real_prometheus_evaluates_every_alert_on_a_running_exporter(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    make_run(tmp_path / "runs" / "demo")
    exporter, server = free_port(), free_port()
    config = (ROOT / "monitoring" / "prometheus.yaml").read_text().replace("9109", str(exporter)).replace("15s", "1s")
    write_bytes(tmp_path / "prometheus.yaml", config.encode())
    shutil.copy(ROOT / "monitoring" / "alerts.yaml", tmp_path)
    prometheus = [
        "prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{server}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "monitoring", "--runs", str(tmp_path / "runs"), "--port", str(exporter)]
    with running(command), running(prometheus):
        fetch(f"http://127.0.0.1:{exporter}/metrics")
        deadline = time.monotonic() + 30
        while not (rules := evaluated(f"http://127.0.0.1:{server}/api/v1/rules")):
            assert time.monotonic() < deadline, "Prometheus did not see the run in time"
            time.sleep(0.3)
    states = {rule["name"]: rule["state"] for rule in rules}
    assert {rule["health"] for rule in rules} == {"ok"}
    pending = {"ScanloopConfidenceDrift", "ScanloopSpendNearCap", "ScanloopQueueStalled"}
    assert {name for name, state in states.items() if state != "inactive"} == pending


def evaluated(url: str) -> list[dict[str, Any]]:
    """Rules with their state, once each was evaluated and one fires or is about to; empty before."""
    rules = [rule for group in json.loads(fetch(url))["data"]["groups"] for rule in group["rules"]]
    ready = all(rule["health"] == "ok" for rule in rules)
    active = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    return rules if ready and "ScanloopConfidenceDrift" in active and "ScanloopExporterDown" not in active else []
