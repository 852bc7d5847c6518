"""Evaluate: both arms on the hold-out, every metric with an interval by group, and a prediction for every image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.splits import assert_learnt_from_train, proven_manifest
from scanloop.artifacts import read_table, write_json, write_table
from scanloop.build import scratch, step
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle, read_learnt
from scanloop.config import EvaluateConfig
from scanloop.errors import BundleError
from scanloop.evaluation.curves import curves
from scanloop.evaluation.holdout import (
    ARMS,
    Measurement,
    held_out_rows,
    mean_probabilities,
    measure_arms,
    measure_out_of_fold,
    measure_test,
    probabilities_of,
)
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.operating_points import OperatingPoint, Scored, operating_points, scored
from scanloop.evaluation.predictions import Archive, confidence_table, predictions_table
from scanloop.steps.examination import Examined, bear_alterations, gain_from_labels, lay_out, part_holdout
from scanloop.steps.scoring import Scorer
from scanloop.types import Interval


@dataclass(frozen=True)
class EvaluateSummary:
    """What the hold-out is, and what the deployed model reaches on it; None where a value is undefined."""

    holdout: str
    images: int
    groups: int
    deployed_arm: str
    accuracy: float
    auroc: float | None
    ece: float
    brier: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    supervised_macro_f1: float
    difference: float
    difference_low: float
    difference_high: float
    predictions: int


@step("evaluation")
def evaluate(  # noqa: PLR0913  a keyword for each artifact
    config: EvaluateConfig,
    *,
    catalog: Path,
    labels: Path,
    pseudo_labels: Path,
    bundle: Path,
    baseline: Path,
    embeddings: Path | None = None,
    triage: Path | None = None,
    output: Path,
) -> EvaluateSummary:
    """Measure the model against the one without pseudo-labels, and predict every image of the archive.

    The hold-out is the catalog's test split; where it has none, the out-of-fold predictions that both models left. The
    deployed arm is semi-supervised if the bundle itself says that it learnt from pseudo-labels.

    `confidence.parquet`, which `detect_drift` compares, holds the word of the head of `pseudo_label` on the hold-out
    and on the pool. It learnt from no pool slice and scored labelled ones once, out of fold. The deployed model may
    have learnt from promoted slices and be surer of them; the pool without them would be harder than the hold-out; and
    a mean over repeats is an ensemble's confidence, which no single model has. Each looks like drift.

    Args:
        config: Resamples, confidence and bins, and what is looked at beside the metrics.
        catalog: Artifact of `ingest`.
        labels: Labels bought since; they belong to the training part.
        pseudo_labels: Artifact of `pseudo_label`.
        bundle: Model trained on the labels and the promoted pseudo-labels.
        baseline: Model trained on the labels alone.
        embeddings: Artifact of `embed`; without, there is no learning curve and no map.
        triage: Artifact of `triage`; without, clusters are no subgroups.
        output: Directory for the evaluation.

    Raises:
        LeakageError: A group crosses the splits, or a model learnt from a slice that is held out.
        TooFewLabelsError: Nothing measures the models.
        BundleError: The models know different classes, or a probability is not a number.
    """
    manifest = proven_manifest(catalog)
    for path in (bundle, baseline):
        assert_learnt_from_train(manifest, read_learnt(path)["slice_id"], f"the model in {path}")
    model, without = read_bundle(bundle), read_bundle(baseline)
    if tuple(without.classes) != tuple(model.classes):
        raise BundleError(f"{baseline} and {bundle} know different classes; run retrain again for both")
    scorer = Scorer(catalog, scratch(output))
    if len(rows := held_out_rows(manifest)):
        measurement, probabilities = _on_test(model, without, manifest, rows, scorer, config.bins)
        out_of_fold: set[str] = set()
    else:
        tables = [read_table(path, "out_of_fold.parquet") for path in (baseline, bundle)]
        measurement = _on_folds(tables, manifest, model, config.bins)
        held_out = mean_probabilities(tables[1])
        out_of_fold = set(held_out.index)
        probabilities = pd.concat([held_out, scorer(model, manifest[~manifest["slice_id"].isin(out_of_fold)])])
    archive = _archive(catalog, manifest, labels, pseudo_labels)
    table = predictions_table(archive, probabilities, out_of_fold, model.classes, model.positive_class)
    write_table(output, "predictions.parquet", table)
    pool = table.loc[table["split"] == "pool", "slice_id"].tolist()
    sides = confidence_table(archive.pseudo_labels, measurement.slice_ids, pool, model.positive_class)
    write_table(output, "confidence.parquet", sides)
    plan = Resampling(config.resamples, config.confidence, config.seed)
    metrics = measure_arms(measurement, plan, model.classes, _deployed_arm(model))
    folds = read_table(bundle, "out_of_fold.parquet")
    metrics["operating_points"] = _operating_points(config, manifest, table, folds, measurement.kind, model)
    write_json(output / "metrics.json", metrics)
    write_json(output / "curves.json", _curves(measurement, metrics, model))
    learnt = frozenset(read_learnt(bundle)["slice_id"])
    seen = Examined(
        config, catalog, manifest, model, bundle, learnt, measurement, metrics["deployed_arm"], embeddings, triage
    )
    _examine(seen, output)
    return _summary(metrics, len(table))


def _examine(seen: Examined, output: Path) -> None:
    """Write what is looked at beside the metrics."""
    write_json(output / "robustness.json", bear_alterations(seen))
    write_json(output / "subgroups.json", part_holdout(seen))
    write_json(output / "learning_curve.json", gain_from_labels(seen))
    about, points = lay_out(seen)
    write_json(output / "map.json", about)
    write_table(output, "map.parquet", points)


def _on_test(
    model: Bundle, without: Bundle, manifest: pd.DataFrame, rows: pd.DataFrame, scorer: Scorer, bins: int
) -> tuple[Measurement, pd.Series]:
    """Both models on the test split, and the deployed one on the whole archive; equal models are run once."""
    probabilities = scorer(model, manifest)
    supervised = probabilities if without.digest == model.digest else scorer(without, rows, "baseline")
    arms = {
        arm: np.stack(scored.loc[rows["slice_id"]].tolist())
        for arm, scored in zip(ARMS, (supervised, probabilities), strict=True)
    }
    return measure_test(rows, arms, model.classes, bins), probabilities


def _on_folds(tables: list[pd.DataFrame], manifest: pd.DataFrame, model: Bundle, bins: int) -> Measurement:
    """Both models where no split is set aside: each image by models that never saw its group."""
    drawn = set(manifest.loc[manifest["label"].notna(), "slice_id"])
    return measure_out_of_fold(dict(zip(ARMS, tables, strict=True)), drawn, model.classes, bins)


def _operating_points(
    config: EvaluateConfig,
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    folds: pd.DataFrame,
    kind: str,
    model: Bundle,
) -> list[OperatingPoint]:
    """Chosen on the validation part where there is one, else out of fold; bought labels neither choose nor judge."""
    drawn = manifest.loc[manifest["label"].notna(), ["slice_id", "group_id", "label"]]
    said = predictions.drop_duplicates("slice_id")[["slice_id", "split", "probabilities"]].merge(drawn, on="slice_id")
    folds = folds[folds["slice_id"].isin(drawn["slice_id"]) & (folds["repeat"] == folds["repeat"].min())]
    names = (model.classes, model.positive_class)

    def of(rows: pd.DataFrame) -> Scored:
        values = np.array(rows["probabilities"].tolist()).reshape(len(rows), len(model.classes))
        return scored(values, rows["label"].tolist(), rows["group_id"].tolist(), *names)

    held_out = probabilities_of(folds) if len(folds) else np.zeros((0, len(model.classes)))
    rows = (folds["label"].tolist(), folds["group_id"].tolist(), *names, folds["fold"].tolist())
    out_of_fold = scored(held_out, *rows)
    test, validation = (of(said[said["split"] == split]) for split in ("test", "validation"))
    by_validation = len(validation.scores) > 0
    chosen = validation if by_validation else replace(out_of_fold, folds=None)
    judged = test if kind == "test" else replace(out_of_fold, folds=None) if by_validation else out_of_fold
    return operating_points(chosen, judged, "validation" if by_validation else "out_of_fold", config.operating_points)


def _deployed_arm(model: Bundle) -> str:
    """Arm that the bundle belongs to; promoted slices that were not drawn for training do not count."""
    learnt = sum(model.about["counts"].get("pseudo_labelled", {}).values())
    return "semi_supervised" if learnt else "supervised"


def _archive(catalog: Path, manifest: pd.DataFrame, labels: Path, pseudo_labels: Path) -> Archive:
    bought = read_table(labels, "labels.parquet").dropna(subset="label")
    known = dict(zip(bought["slice_id"], bought["label"], strict=True))
    pseudo = read_table(pseudo_labels, "pseudo_labels.parquet")
    return Archive(read_table(catalog, "sources.parquet", ["slice_id", "uri"]), manifest, known, pseudo)


def _curves(measurement: Measurement, metrics: Mapping[str, Any], model: Bundle) -> dict[str, Any]:
    arms = {
        arm: curves(values, measurement.holdout, model.classes, model.positive_class)
        for arm, values in measurement.arms.items()
    }
    facts = {name: metrics[name] for name in ("deployed_arm", "holdout")}
    return facts | {"positive_class": model.positive_class, "arms": arms}


def _summary(metrics: Mapping[str, Any], predictions: int) -> EvaluateSummary:
    deployed = metrics["deployed_arm"]
    reached: Mapping[str, Interval] = metrics["arms"][deployed]
    difference: Interval = metrics["difference"]["macro_f1"]
    area = reached["auroc"].value
    return EvaluateSummary(
        holdout=metrics["holdout"]["kind"],
        images=metrics["holdout"]["images"],
        groups=metrics["holdout"]["groups"],
        deployed_arm=deployed,
        accuracy=reached["accuracy"].value,
        auroc=area if np.isfinite(area) else None,
        ece=reached["ece"].value,
        brier=reached["brier"].value,
        macro_f1=reached["macro_f1"].value,
        macro_f1_low=reached["macro_f1"].low,
        macro_f1_high=reached["macro_f1"].high,
        supervised_macro_f1=metrics["arms"]["supervised"]["macro_f1"].value,
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
        predictions=predictions,
    )
