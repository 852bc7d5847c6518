"""The alerts under promtool, and what each of them must have: tests both ways, a severity, a heading in the runbook."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.metrics import METRICS

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]  # fmt: skip


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder of the rules; the test is skipped where it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules_and_the_scrape_config() -> None:
    for arguments in (("rules", "alerts.yaml"), ("config", "prometheus.yaml")):
        checked = promtool("check", *arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_when_it_must_and_not_before() -> None:
    tested = promtool("test", "rules", "alerts_test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]
    for rule in RULES:
        cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
        assert {bool(case["exp_alerts"]) for case in cases} == {True, False}, rule["alert"]


def test_every_alert_says_how_bad_it_is_and_points_to_its_heading_in_the_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (MONITORING / "runbook.md").read_text(), flags=re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
        assert rule["annotations"]["runbook_url"] == f"monitoring/runbook.md#{rule['alert'].lower()}"


def used_metrics() -> set[str]:
    return {name for rule in RULES for name in re.findall(r"scanloop_\w+", rule["expr"])}


def test_every_metric_in_an_alert_is_one_that_exporter_or_serving_define() -> None:
    serving = ROOT / "serving" / "metrics.py"
    if not serving.is_file():
        pytest.skip("serving/metrics.py is not here")
    named = set(re.findall(r'"(scanloop_\w+)"', serving.read_text()))
    defined = {metric.name for metric in METRICS} | named | {f"{name}_total" for name in named}
    assert used_metrics() - defined == set()
    assert len(used_metrics()) >= 6
