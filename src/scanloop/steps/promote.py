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
from scanloop.errors import ArtifactError, LeakageError
from scanloop.evaluation.gates import (
    CHAMPION_CHECK,
    Check,
    Rival,
    best_champion_checks,
    decision_figures,
    hold_out_checks,
    interval_from,
    looks_check,
    rival_checks,
)
from scanloop.evaluation.judged import Judged, against, holdout_digest, judged_rows
from scanloop.evaluation.looks import tail_at
from scanloop.evaluation.paired_tests import delong, mcnemar
from scanloop.provenance import file_digest
from scanloop.tracking import CHALLENGER, CHAMPION, DECISION_TAG, DIGEST_TAG, HOLDOUT_TAG, KEY_TAG, Candidate, Registry
from scanloop.wandb_runs import WandbRuns


@dataclass(frozen=True)
class PromoteSummary:
    """What was decided ("promoted" or "refused"), the alias that the model has after it, and why."""

    decision: str
    alias: str
    reason: str


@step("promotion")
def promote(config: PromoteConfig, *, catalog: Path, bundle: Path, evaluation: Path, output: Path) -> PromoteSummary:
    """Decision about a bundle, written down first and then carried out in the MLflow registry.

    Promoted only if the hold-out may judge one model more and has enough independent groups, the lower bound of
    macro-F1 reaches the minimum, pseudo-labels did no harm, and nothing is lost against the champion or any before
    it, each at a confidence bound that counts the looks at this hold-out. A refused model is registered as challenger.
    Each decision is a run in MLflow, and where `wandb_project` is given in Weights & Biases; docs/statistics.md lists
    what it holds.

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
        ArtifactError: The evaluation holds no image that judges.
        ConfigError: `wandb_project` is given and wandb is not installed.
    """
    beside = _beside(config, output)
    manifest = proven_manifest(catalog)
    learnt = read_learnt(bundle)
    assert_learnt_from_train(manifest, learnt["slice_id"], f"the model in {bundle}")
    _refuse_held_out_groups(manifest, learnt, bundle)
    case = _case(config, manifest, bundle, evaluation, output)
    decided = scratch(output) / "promotion.json"
    if not decided.exists():  # a killed attempt decided already, and may have moved the champion's alias
        write_json(decided, _decide(case))
    decision = read_json(decided)
    arm = case.metrics["deployed_arm"]
    f1 = case.metrics["arms"][arm]["macro_f1"]
    params = {"decision": decision["decision"], "reason": decision["reason"][:5000], "deployed_arm": arm}
    numbers = {f"macro_f1_{name}": float(f1[name]) for name in ("value", "low", "high")}
    candidate = Candidate(case.key, bundle, evaluation, params, numbers)
    case.registry.register(candidate, decision["decision"], decision["alias"])
    _log(case, decision, beside)
    write_json(output / "promotion.json", decision)
    return PromoteSummary(decision["decision"], decision["alias"], decision["reason"])


def _refuse_held_out_groups(manifest: pd.DataFrame, learnt: pd.DataFrame, bundle: Path) -> None:
    """The groups of the catalog that the bundle was trained on count too: another catalog may have cut others."""
    held_out = set(manifest.loc[manifest["split"] != "train", "group_id"])
    if both := held_out & set(learnt["group_id"]):
        raise LeakageError(f"the model in {bundle} learnt from group {min(both)}, which is held out: run retrain again")


@dataclass(frozen=True)
class _Case:
    """What is decided on."""

    config: PromoteConfig
    registry: Registry
    metrics: dict[str, Any]
    judged: Judged
    classes: list[str]
    key: str
    folder: Path


def _case(config: PromoteConfig, catalog: pd.DataFrame, bundle: Path, evaluation: Path, output: Path) -> _Case:
    if config.tracking_uri:
        registry = Registry(config.tracking_uri, config.model_name)
    else:
        registry = Registry.local(output.parent, config.model_name)
    classes = read_json(bundle / "classes.json")["classes"]
    judged = judged_rows(read_table(evaluation, "predictions.parquet"), catalog, classes)
    if not judged.count:
        raise ArtifactError(f"{evaluation} predicts no held-out image with a label of the catalog; run evaluate again")
    metrics = read_json(evaluation / "metrics.json")
    return _Case(config, registry, metrics, judged, classes, read_key(evaluation), scratch(output))


def _decide(case: _Case) -> dict[str, Any]:
    config, registry = case.config, case.registry
    holdout = holdout_digest(case.judged, case.classes)
    look = registry.look(holdout, f"{case.key}:{config.seed}", config.max_looks)
    tail = tail_at(look, config.confidence)
    champion = registry.champion()
    judged_again = champion is not None and champion.tags.get(KEY_TAG) == case.key
    has_rival = champion is not None and not judged_again
    checks = [looks_check(look, config)]
    tests: dict[str, Any] = {}
    if checks[0].passed:
        checks += _own_checks(case, tail)
        if has_rival:
            found, tests = _against_champions(case, champion, tail)
            checks += found
    failed = [check for check in checks if not check.passed]
    promoted = not failed
    stays_champion = judged_again and not promoted
    return {
        "decision": "promoted" if promoted else "refused",
        "alias": CHAMPION if promoted or stays_champion else CHALLENGER,
        "reason": _reason(failed, stays_champion),
        "checks": checks,
        "tests": tests,
        "look": {
            "number": look, "most": config.max_looks, "tail": tail, "holdout": holdout,
            "counted_in": "the tracking server" if config.tracking_uri else "this run's folder alone",
        },
        "model_name": config.model_name,
        "had_champion": has_rival,
        "stays_champion": stays_champion,
    }  # fmt: skip


def _own_checks(case: _Case, tail: float) -> list[Check]:
    arm = case.metrics["deployed_arm"]
    gain = interval_from(case.metrics["difference"]["macro_f1"]) if arm == "semi_supervised" else None
    f1 = interval_from(case.metrics["arms"][arm]["macro_f1"])
    return hold_out_checks(f1, case.judged, case.metrics["holdout"]["groups"], gain, tail, case.config)


def _against_champions(case: _Case, champion: Any, tail: float) -> tuple[list[Check], dict[str, Any]]:
    """Checks against the present champion and those before it; McNemar's and DeLong's tests against the present one."""
    rival = _rival(case, champion)
    checks = rival_checks(CHAMPION_CHECK, case.judged, case.classes, rival, tail, case.config)
    former = [_rival(case, version) for version in case.registry.former_champions(case.key)]
    checks += best_champion_checks(case.judged, case.classes, former, tail, case.config)
    both = against(case.judged, rival.predictions) if list(rival.classes) == case.classes else None
    if both is None or not both.count:
        return checks, {}
    areas = delong(both, case.classes, case.config.confidence)
    return checks, {"mcnemar": mcnemar(both, case.config.seed), "delong": areas}


def _rival(case: _Case, version: Any) -> Rival:
    """A champion's predictions and classes, as they were logged with it."""
    folder = case.folder / f"version-{version.version}"
    predictions = case.registry.fetch(version, "evaluation/predictions.parquet", folder)
    classes = read_json(case.registry.fetch(version, "bundle/classes.json", folder))["classes"]
    return Rival(str(version.version), pq.read_table(predictions).to_pandas(), classes)


def _beside(config: PromoteConfig, output: Path) -> WandbRuns | None:
    """Where decisions are kept beside MLflow; asked for before anything is judged, which counts as a look."""
    if config.wandb_project is None:
        return None
    return WandbRuns(config.wandb_project, config.model_name, output.parent)


def _log(case: _Case, decision: dict[str, Any], beside: WandbRuns | None) -> None:
    """The decision as a run of its own, beside the candidate's; docs/statistics.md lists the names."""
    kept = case.folder / "logged"
    write_json(kept / "promotion.json", decision)
    f1 = case.metrics["arms"][case.metrics["deployed_arm"]]["macro_f1"]
    tags = {
        KEY_TAG: case.key, HOLDOUT_TAG: decision["look"]["holdout"], DECISION_TAG: decision["decision"],
        "scanloop.alias": decision["alias"], "scanloop.reason": decision["reason"][:5000],
    }  # fmt: skip
    figures = decision_figures(decision) | {f"macro_f1.{name}": float(f1[name]) for name in ("value", "low", "high")}
    digest = file_digest(kept / "promotion.json")
    case.registry.log_decision(digest, tags, figures, kept)
    if beside is not None:
        beside.log_decision(digest, tags | {DIGEST_TAG: digest}, figures)


def _reason(failed: list[Check], stays_champion: bool) -> str:
    if not failed:
        return "every bound holds"
    reasons = "; ".join(check.sentence for check in failed)
    if not stays_champion:
        return reasons
    return f"the champion no longer meets the bounds: {reasons}; it stays champion until another model takes its place"
