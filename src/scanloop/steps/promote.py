"""Promote: decide on bounds whether a model becomes champion, and say why or why not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from scanloop.archive.splits import assert_no_leakage
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.build import read_key, scratch, step
from scanloop.config import PromoteConfig
from scanloop.evaluation.gates import Check, champion_check, hold_out_checks, interval_from
from scanloop.tracking import CHALLENGER, CHAMPION, Candidate, Registry


@dataclass(frozen=True)
class PromoteSummary:
    """The decision, the alias that the model now has, and why."""

    decision: str
    alias: str
    reason: str


@step("promotion")
def promote(config: PromoteConfig, *, catalog: Path, bundle: Path, evaluation: Path, output: Path) -> PromoteSummary:
    """Decision about a bundle, written down first and then carried out in the MLflow registry.

    Promoted only if the hold-out has enough independent groups, the lower bound of macro-F1 reaches the minimum,
    pseudo-labels did no harm, and nothing is lost against the champion, each at a confidence bound. A refused model is
    registered as challenger.

    Args:
        config: Bounds, margin, registry.
        catalog: Artifact of `ingest`.
        bundle: The model.
        evaluation: Its evaluation.
        output: Directory for the decision.

    Raises:
        LeakageError: A group crosses the splits.
    """
    manifest = read_table(catalog, "manifest")
    assert_no_leakage(manifest)
    if config.tracking_uri:
        registry = Registry(config.tracking_uri, config.model_name)
    else:
        registry = Registry.local(output.parent, config.model_name)
    metrics, key = read_json(evaluation / "metrics.json"), read_key(evaluation)
    decided = scratch(output) / "promotion.json"
    if not decided.exists():  # a killed attempt decided already, and may have moved the champion's alias
        write_json(decided, _decide(config, registry, metrics, manifest, bundle, evaluation, key, scratch(output)))
    decision = read_json(decided)
    f1 = metrics["arms"][metrics["deployed_arm"]]["macro_f1"]
    params = {"decision": decision["decision"], "reason": decision["reason"], "deployed_arm": metrics["deployed_arm"]}
    numbers = {f"macro_f1_{name}": float(f1[name]) for name in ("value", "low", "high")}
    registry.register(Candidate(key, bundle, evaluation, params, numbers), decision["alias"])
    write_json(output / "promotion.json", decision)
    return PromoteSummary(decision["decision"], decision["alias"], decision["reason"])


def _decide(
    config: PromoteConfig,
    registry: Registry,
    metrics: dict[str, Any],
    manifest: pd.DataFrame,
    bundle: Path,
    evaluation: Path,
    key: str,
    folder: Path,
) -> dict[str, Any]:
    arm = metrics["deployed_arm"]
    gain = interval_from(metrics["difference"]["macro_f1"]) if arm == "semi_supervised" else None
    f1 = interval_from(metrics["arms"][arm]["macro_f1"])
    checks = hold_out_checks(f1, metrics["holdout"]["groups"], gain, config)
    champion = registry.champion(other_than=key)
    if champion is not None:
        groups = manifest[["slice_id", "group_id"]]
        ours = read_table(evaluation, "predictions.parquet").merge(groups, on="slice_id")
        path = registry.fetch(champion, "evaluation/predictions.parquet", folder)
        classes = read_json(bundle / "classes.json")["classes"]
        checks.append(champion_check(ours, pq.read_table(path).to_pandas(), classes, config))
    failed = [check for check in checks if not check.passed]
    promoted = not failed
    return {
        "decision": "promoted" if promoted else "refused",
        "alias": CHAMPION if promoted else CHALLENGER,
        "reason": _reason(failed),
        "checks": checks,
        "model_name": config.model_name,
        "had_champion": champion is not None,
    }


def _reason(failed: list[Check]) -> str:
    return "; ".join(check.sentence for check in failed) if failed else "every bound holds"
