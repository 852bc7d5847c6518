"""Promote: decide on bounds whether a model becomes champion, and say why or why not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from scanloop.archive.splits import assert_learnt_from_train, proven_manifest
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.build import read_key, scratch, step
from scanloop.bundle.read import read_learnt
from scanloop.config import PromoteConfig
from scanloop.errors import LeakageError
from scanloop.evaluation.gates import Check, champion_check, hold_out_checks, interval_from
from scanloop.tracking import CHALLENGER, CHAMPION, KEY_TAG, Candidate, Registry


@dataclass(frozen=True)
class PromoteSummary:
    """What was decided ("promoted" or "refused"), the alias that the model has after it, and why."""

    decision: str
    alias: str
    reason: str


@step("promotion")
def promote(config: PromoteConfig, *, catalog: Path, bundle: Path, evaluation: Path, output: Path) -> PromoteSummary:
    """Decision about a bundle, written down first and then carried out in the MLflow registry.

    Promoted only if the hold-out has enough independent groups, the lower bound of macro-F1 reaches the minimum,
    pseudo-labels did no harm, and nothing is lost against the champion, each at a confidence bound. A refused model is
    registered as challenger.

    The champion itself, judged again under stricter bounds and refused, stays champion: taking a model out of service,
    with none to follow it, is a decision for people. The decision is "refused", its reason says that the champion no
    longer meets the bounds, and the registry's version carries it as the tag `scanloop.decision`.

    Args:
        config: Bounds, margin, registry.
        catalog: Artifact of `ingest`.
        bundle: The model.
        evaluation: Its evaluation.
        output: Directory for the decision.

    Raises:
        LeakageError: A group crosses the splits, the manifest and the lists of groups disagree, or the bundle learnt
            from a slice whose group is held out.
        BundleError: What the bundle says that it learnt from was changed.
    """
    manifest = proven_manifest(catalog)
    learnt = read_learnt(bundle)
    assert_learnt_from_train(manifest, learnt["slice_id"], f"the model in {bundle}")
    _refuse_held_out_groups(manifest, learnt, bundle)
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
    registry.register(Candidate(key, bundle, evaluation, params, numbers), decision["decision"], decision["alias"])
    write_json(output / "promotion.json", decision)
    return PromoteSummary(decision["decision"], decision["alias"], decision["reason"])


def _refuse_held_out_groups(manifest: pd.DataFrame, learnt: pd.DataFrame, bundle: Path) -> None:
    """The groups of the catalog that the bundle was trained on count too: another catalog may have cut others."""
    held_out = set(manifest.loc[manifest["split"] != "train", "group_id"])
    if both := held_out & set(learnt["group_id"]):
        raise LeakageError(f"the model in {bundle} learnt from group {min(both)}, which is held out: run retrain again")


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
    champion = registry.champion()
    judged_again = champion is not None and champion.tags.get(KEY_TAG) == key
    if has_rival := champion is not None and not judged_again:
        groups = manifest[["slice_id", "group_id"]]
        ours = read_table(evaluation, "predictions.parquet").merge(groups, on="slice_id")
        path = registry.fetch(champion, "evaluation/predictions.parquet", folder)
        named = (bundle / "classes.json", registry.fetch(champion, "bundle/classes.json", folder))
        classes, champion_classes = (read_json(file)["classes"] for file in named)
        theirs = pq.read_table(path).to_pandas()
        checks.append(champion_check(ours, theirs, classes, champion_classes, config))
    failed = [check for check in checks if not check.passed]
    promoted = not failed
    stays_champion = judged_again and not promoted
    return {
        "decision": "promoted" if promoted else "refused",
        "alias": CHAMPION if promoted or stays_champion else CHALLENGER,
        "reason": _reason(failed, stays_champion),
        "checks": checks,
        "model_name": config.model_name,
        "had_champion": has_rival,
        "stays_champion": stays_champion,
    }


def _reason(failed: list[Check], stays_champion: bool) -> str:
    if not failed:
        return "every bound holds"
    reasons = "; ".join(check.sentence for check in failed)
    if not stays_champion:
        return reasons
    return f"the champion no longer meets the bounds: {reasons}; it stays champion until another model takes its place"
