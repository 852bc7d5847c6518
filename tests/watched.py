"""A finished run as the exporter finds it, and the page that it makes of one: what the tests of monitoring share."""

from collections import Counter
from pathlib import Path

import pandas as pd
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.exporter import registry_of
from scanloop.artifacts import KINDS, write_bytes, write_json, write_table

FINISHED = 1_700_000_000.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def artifact(run: Path, kind: str) -> Path:
    """A folder that is whole as far as its files' names go, with the two files that every artifact has."""
    path = run / kind
    for name in KINDS[kind]:
        if not (path / name).exists():
            write_bytes(path / name, b"{}")
    write_json(path / "run.json", {"seconds": 1.0, "finished": FINISHED, "machine": {}})
    write_json(path / "artifact.json", {"kind": kind, "key": "key", "summary": {}, "files": {}})
    return path


def labels_in(run: Path, slices: list[str]) -> None:
    write_table(run / "labels", "labels.parquet", pd.DataFrame({"slice_id": slices, "label": "cancer"}))
    artifact(run, "labels")


def new_pseudo_labels(run: Path) -> None:
    """As `pseudo_label` writes it: a row for every uri, with copies, one labelled and one held-out slice."""
    pool = {"e": "promoted", "f": "low confidence", "g": "promoted", "h": "low confidence", "i": "neighbours disagree"}
    reasons = pool | {"a": "labelled", "z": "held out with its group"}
    slices = [*reasons, "e", "e", "f"]
    rows = pd.DataFrame({"slice_id": slices, "uri": [f"{name}-{row}.png" for row, name in enumerate(slices)]})
    rows["reason"] = rows["slice_id"].map(reasons)
    rows["promoted"] = rows["reason"] == "promoted"
    write_table(run / "pseudo_labels", "pseudo_labels.parquet", rows)
    counts = {"pool": len(pool), "candidates": 2, "promoted": 2, "reasons": dict(Counter(pool.values()))}
    write_json(run / "pseudo_labels" / "certificate.json", counts | {"gate": {"passed": True}, "rule": {}, "wave": 1})


def make_run(run: Path) -> Path:
    """A finished run: 3 quarantined, 4 queued and 1 of them labelled, 2 of 5 pseudo-labels promoted, drifted."""
    reasons = ["truncated", "truncated", "too_small"]
    write_table(run / "catalog", "quarantine.parquet", pd.DataFrame({"uri": ["a", "b", "c"], "reason": reasons}))
    queue = pd.DataFrame({"slice_id": list("abcd"), "rank": range(4), "price": [0.55, 0.55, 0.55, 1.1]})
    write_table(run / "queue", "queue.parquet", queue)
    new_pseudo_labels(run)
    arms = {"supervised": {"macro_f1": {"low": 0.7}}, "semi_supervised": {"macro_f1": {"low": 0.81, "value": 0.9}}}
    write_json(run / "evaluation" / "metrics.json", {"arms": arms, "deployed_arm": "semi_supervised"})
    pool = {"n": 200, "mean": 0.75, "quantiles": {"0.05": 0.6, "0.5": 0.7}}
    drift = {"score": 0.4, "threshold": 0.2, "drifted": True, "current": pool}
    write_json(run / "drift" / "drift.json", drift)
    write_json(run / "account" / "ledger.json", {"total_eur": 91.5, "cap_eur": 100.0})
    for kind in ("catalog", "queue", "pseudo_labels", "evaluation", "drift", "account"):
        artifact(run, kind)
    labels_in(run, ["a"])
    return run


def parse(text: str) -> Samples:
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def scrape(runs: Path) -> Samples:
    return parse(generate_latest(registry_of(runs)).decode())


def value(samples: Samples, name: str, run: str = "demo", **labels: str) -> float | None:
    return samples.get((f"scanloop_{name}", frozenset({"run": run, **labels}.items())))
