"""The step `account`, on artifacts whose node time and labels are known."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from scanloop.artifacts import write_json, write_table
from scanloop.build import read_summary
from scanloop.config import AccountConfig
from scanloop.errors import ArtifactError, ConfigError
from scanloop.report.accounting import money
from scanloop.report.blocks import Table
from scanloop.report.material import Material
from scanloop.steps.account import AccountSummary, account

SLICES = 8


def artifact(path: Path, kind: str, seconds: float) -> Path:
    """The two files that every artifact has."""
    write_json(path / "artifact.json", {"kind": kind, "key": f"key of {kind}", "summary": {}, "files": {}})
    write_json(path / "run.json", {"seconds": seconds, "finished": 0.0, "machine": {}})
    return path


def catalog_of(folder: Path, seconds: float = 3600) -> Path:
    catalog = artifact(folder / "catalog", "catalog", seconds)
    write_table(catalog, "manifest", pd.DataFrame({"slice_id": [f"s{index}" for index in range(SLICES)]}))
    return catalog


def queue_of(folder: Path, prices: dict[str, float]) -> Path:
    queue = artifact(folder / "queue", "queue", 36)
    rows = pd.DataFrame({"slice_id": list(prices), "rank": range(len(prices)), "price": list(prices.values())})
    write_table(queue, "queue.parquet", rows)
    return queue


def labels_of(folder: Path, slices: list[str], readers: int = 1) -> Path:
    labels = artifact(folder / "labels", "labels", 0)
    rows = pd.DataFrame({"slice_id": slices, "label": ["cancer"] * len(slices), "readers": readers})
    write_table(labels, "labels.parquet", rows)
    return labels


def ledger_in(output: Path) -> dict[str, object]:
    ledger: dict[str, object] = json.loads((output / "ledger.json").read_text())
    return ledger


def test_each_reading_of_an_image_is_charged(tmp_path: Path) -> None:
    queue, labels = queue_of(tmp_path, {"s0": 0.55, "s1": 0.1}), labels_of(tmp_path, ["s0", "s1"], readers=3)
    summary = account(
        AccountConfig(), catalog=catalog_of(tmp_path), queue=queue, labels=labels, output=tmp_path / "account"
    )
    assert (summary.labels, summary.label_eur) == (2, 1.95)


def test_node_hours_and_labels_add_up_to_the_ledger(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, {"s0": 0.55, "s1": 0.55, "s2": 1.1})
    summary = account(
        AccountConfig(node="gpu-t4-spot", cap_eur=10),
        catalog=catalog_of(tmp_path),
        encoder=artifact(tmp_path / "encoder", "encoder", 7200),
        queue=queue,
        labels=labels_of(tmp_path, ["s0", "s2"]),
        output=tmp_path / "account",
    )
    ledger = ledger_in(tmp_path / "account")
    assert ledger["entries"] == [
        {"step": "catalog", "seconds": 3600.0, "eur": 0.35, "imported": False},
        {"step": "encoder", "seconds": 7200.0, "eur": 0.7, "imported": False},
        {"step": "queue", "seconds": 36.0, "eur": 0.0035, "imported": False},
        {"step": "labels", "seconds": 0.0, "eur": 0.0, "imported": False},
    ]
    assert ledger["label_entries"] == [
        {"count": 1, "price_eur": 0.55, "eur": 0.55},
        {"count": 1, "price_eur": 1.1, "eur": 1.1},
    ]
    total = 0.35 + 0.7 + 0.0035 + 0.55 + 1.1
    assert ledger["total_eur"] == pytest.approx(total, abs=1e-12)
    assert ledger["eur_per_1000_slices"] == pytest.approx(total / SLICES * 1000, abs=1e-6)
    assert (ledger["seconds"], ledger["labels"], ledger["node"]) == (10836.0, 2, "gpu-t4-spot")
    assert (ledger["cap_eur"], ledger["over_cap"]) == (10.0, False)
    assert ledger["cap_share"] == pytest.approx(total / 10, abs=1e-6)
    assert summary == AccountSummary("gpu-t4-spot", 0.35, 4, SLICES, 2, 1.65, 0, 10)


def test_what_an_earlier_run_made_and_bought_is_listed_and_not_charged_again(tmp_path: Path) -> None:
    queue, labels = queue_of(tmp_path, {"s0": 0.55, "s1": 0.55}), labels_of(tmp_path, ["s0", "s1"])
    bundle = artifact(tmp_path / "bundle", "bundle", 7200)
    summary = account(
        AccountConfig(node="gpu-t4-spot", imported=("catalog", "queue", "labels")),
        catalog=catalog_of(tmp_path), queue=queue, labels=labels, bundle=bundle, output=tmp_path / "account",
    )  # fmt: skip
    ledger = ledger_in(tmp_path / "account")
    assert ledger["entries"] == [
        {"step": "catalog", "seconds": 0.0, "eur": 0.0, "imported": True},
        {"step": "queue", "seconds": 0.0, "eur": 0.0, "imported": True},
        {"step": "labels", "seconds": 0.0, "eur": 0.0, "imported": True},
        {"step": "bundle", "seconds": 7200.0, "eur": 0.7, "imported": False},
    ]
    assert (ledger["total_eur"], ledger["seconds"], ledger["labels"], ledger["label_entries"]) == (0.7, 7200.0, 0, [])
    assert (summary.artifacts, summary.labels, summary.label_eur, summary.labels_unpriced) == (1, 0, 0.0, 0)


def test_an_imported_artifact_that_is_not_given_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"account\.imported names encodre; the artifacts given are catalog"):
        account(AccountConfig(imported=("encodre",)), catalog=catalog_of(tmp_path), output=tmp_path / "account")


def test_the_page_says_which_artifacts_an_earlier_run_paid(tmp_path: Path) -> None:
    catalog, bundle = catalog_of(tmp_path), artifact(tmp_path / "bundle", "bundle", 7200)
    account(AccountConfig(imported=("catalog",)), catalog=catalog, bundle=bundle, output=tmp_path / "account")
    (table,) = [
        block for block in money(Material({"account": tmp_path / "account"})).blocks if isinstance(block, Table)
    ]
    assert table.rows[:2] == [("catalog", "an earlier run's", "€0.00"), ("bundle", "2 h 00 min", "€0.06")]


def test_the_stored_summary_makes_the_summary_again(tmp_path: Path) -> None:
    summary = account(AccountConfig(), catalog=catalog_of(tmp_path), output=tmp_path / "account")
    assert AccountSummary(**read_summary(tmp_path / "account")) == summary
    assert account(AccountConfig(), catalog=tmp_path / "catalog", output=tmp_path / "account") == summary


def test_a_run_over_its_cap_is_reported_and_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "scanloop"):
        summary = account(AccountConfig(cap_eur=0.02), catalog=catalog_of(tmp_path), output=tmp_path / "account")
    assert not hasattr(summary, "over_cap"), "a clock decides it"
    assert ledger_in(tmp_path / "account")["over_cap"] is True
    assert "over the cap of 0.02 EUR" in caplog.text


def test_a_label_that_was_never_queued_is_counted_and_not_charged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue, labels = queue_of(tmp_path, {"s0": 0.55}), labels_of(tmp_path, ["s0", "s7"])
    with caplog.at_level(logging.WARNING, "scanloop"):
        priced = account(
            AccountConfig(), catalog=catalog_of(tmp_path), queue=queue, labels=labels, output=tmp_path / "a"
        )
    assert (priced.labels, priced.label_eur, priced.labels_unpriced) == (1, 0.55, 1)
    assert "1 labels stand in no queue" in caplog.text
    no_queue = account(AccountConfig(), catalog=tmp_path / "catalog", labels=labels, output=tmp_path / "b")
    assert (no_queue.labels, no_queue.label_eur, no_queue.labels_unpriced) == (0, 0.0, 2)


def test_an_unknown_node_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cpu-2core"):
        account(AccountConfig(node="abacus"), catalog=catalog_of(tmp_path), output=tmp_path / "account")


def test_an_artifact_without_its_time_is_refused(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path)
    (catalog / "run.json").unlink()
    with pytest.raises(ArtifactError, match=r"run\.json is missing"):
        account(AccountConfig(), catalog=catalog, output=tmp_path / "account")


def test_two_runs_of_different_speed_differ_in_the_ledger_alone(tmp_path: Path) -> None:
    for name, seconds in (("slow", 5000.0), ("fast", 50.0)):
        catalog = catalog_of(tmp_path / name, seconds)
        account(AccountConfig(cap_eur=0.01), catalog=catalog, output=tmp_path / name / "account")
    slow, fast = tmp_path / "slow" / "account", tmp_path / "fast" / "account"
    assert [ledger_in(folder)["over_cap"] for folder in (slow, fast)] == [True, False]
    assert (slow / "ledger.json").read_bytes() != (fast / "ledger.json").read_bytes()
    assert (slow / "artifact.json").read_bytes() == (fast / "artifact.json").read_bytes()
