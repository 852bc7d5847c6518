"""Validate externally: a bundle as it is, judged on a labelled set from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.artifacts import check_artifact, read_json, read_table, write_json, write_table
from scanloop.build import RECORD, read_key, scratch, step
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle, read_learnt
from scanloop.config import ExternalConfig
from scanloop.drift.scores import permutation_test
from scanloop.errors import ArtifactError, TooFewLabelsError
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.external import at_points, external_metrics, matched, unpaired_difference
from scanloop.evaluation.holdout import probabilities_of
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.operating_points import Scored, scored
from scanloop.steps.scoring import Scorer
from scanloop.types import Float


@dataclass(frozen=True)
class ExternalSummary:
    """What the fixed model reaches on the foreign set; None where a value is undefined."""

    images: int
    groups: int
    left_out: int
    accuracy: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    auroc: float | None
    ece: float


@step("external")
def validate_external(
    config: ExternalConfig, *, catalog: Path, bundle: Path, evaluation: Path | None = None, output: Path
) -> ExternalSummary:
    """Judge a bundle on the labelled slices of a foreign catalog, with its own temperature and a threshold set before.

    Slices from which the model learnt, byte for byte, are left out and counted, and so are those that chose the
    thresholds of an evaluation. Images of its patients under other bytes cannot be told from here.

    Args:
        config: Threshold, names of classes, resamples.
        catalog: Artifact of `ingest` of the foreign set.
        bundle: Model to judge.
        evaluation: Artifact of `evaluate` of this very bundle, whose operating points are judged as well.
        output: Directory for what was found.

    Raises:
        ConfigError: A label of the set is no class of the model.
        TooFewLabelsError: No labelled slice is there to judge.
        ArtifactError: The evaluation is of another bundle, or chose no operating point.
    """
    points = [] if evaluation is None else _points(evaluation, bundle)
    model = read_bundle(bundle)
    manifest = read_table(catalog, "manifest")
    rows = manifest[manifest["label"].notna()]
    if config.split != "all":
        rows = rows[rows["split"] == config.split]
    known = rows["slice_id"].isin(set(read_learnt(bundle)["slice_id"]))
    rows, left_out = rows[~known], int(known.sum())
    chose = rows["slice_id"].isin(_choosers(evaluation))
    rows = rows[~chose]
    if rows.empty:
        raise TooFewLabelsError(
            f"{catalog}: no labelled image of split {config.split} that the model did not learn from"
            + " and that chose no threshold" * (evaluation is not None)
        )
    given = matched(rows["label"].tolist(), config.classes, model.classes)
    said = Scorer(catalog, scratch(output))(model, rows)
    probabilities = np.stack(said.loc[rows["slice_id"]].tolist())
    labels = np.array([model.classes.index(name) for name in given], dtype=np.int64)
    holdout = Holdout(labels, rows["group_id"].to_numpy(dtype=str), config.bins)
    plan = Resampling(config.resamples, config.confidence, config.seed)
    found = external_metrics(probabilities, holdout, model.classes, model.positive_class, config.threshold, plan)
    promised = model.about.get("metrics", {})
    found |= {
        "model": model.digest,
        "calibration": model.calibrator.method,
        "left_out_as_learnt_from": left_out,
        "left_out_as_choosers_of_thresholds": int(chose.sum()),
        "operating_points": at_points(points, _scored(probabilities, given, rows, model), config.confidence),
        "promised": promised,
        "difference": {
            name: unpaired_difference(entry, promised[name])
            for name, entry in found["metrics"].items()
            if name in promised
        },
        "confidence_drift": _drift(bundle, probabilities, config.seed),
    }
    write_json(output / "external.json", found)
    write_table(output, "predictions.parquet", _predictions(catalog, rows, given, probabilities, model))
    reached = found["metrics"]
    area = reached["auroc"].value
    return ExternalSummary(
        len(rows), found["groups"], left_out, reached["accuracy"].value, reached["macro_f1"].value,
        reached["macro_f1"].low, reached["macro_f1"].high, area if np.isfinite(area) else None, reached["ece"].value,
    )  # fmt: skip


def _points(evaluation: Path, bundle: Path) -> list[dict[str, Any]]:
    """Operating points of an evaluation, if it is of this bundle."""
    check_artifact(evaluation, "evaluation")
    judged = read_json(evaluation / RECORD)["inputs"].get("bundle")
    if judged != (asked := read_key(bundle)):
        raise ArtifactError(
            f"{evaluation} is of another model (key {str(judged)[:12]}) than {bundle} (key {asked[:12]}): give the "
            "evaluation of the run that the bundle comes from"
        )
    points: list[dict[str, Any]] = read_json(evaluation / "metrics.json").get("operating_points", [])
    if not points:
        raise ArtifactError(
            f"{evaluation} holds no operating point: older versions chose none, nor does evaluate where images of the "
            "positive class or of the others are missing; run evaluate again, or leave --evaluation out and give a "
            "--threshold"
        )
    return points


def _choosers(evaluation: Path | None) -> set[str]:
    """Slices that may have chosen the thresholds and were not learnt from: the validation part."""
    if evaluation is None:
        return set()
    table = read_table(evaluation, "predictions.parquet", ["slice_id", "split"])
    return set(table.loc[table["split"] == "validation", "slice_id"])


def _scored(probabilities: Float, given: list[str], rows: pd.DataFrame, model: Bundle) -> Scored:
    return scored(probabilities, given, rows["group_id"].tolist(), model.classes, model.positive_class)


def _drift(bundle: Path, probabilities: Float, seed: int) -> dict[str, Any]:
    """PSI of the confidence against that of the bundle's first round out of fold, and what chance alone gives."""
    table = read_table(bundle, "out_of_fold.parquet")
    own = probabilities_of(table[table["repeat"] == table["repeat"].min()]).max(axis=1)
    confidence = probabilities.max(axis=1)
    tested = permutation_test("psi", own, confidence, seed)
    return {
        "method": "psi", "score": tested.score, "chance": tested.chance, "mean_before": float(own.mean()),
        "mean_here": float(confidence.mean()), "n_before": len(own),
    }  # fmt: skip


def _predictions(
    catalog: Path, rows: pd.DataFrame, given: list[str], probabilities: Float, model: Bundle
) -> pd.DataFrame:
    uris = read_table(catalog, "sources.parquet", ["slice_id", "uri"]).drop_duplicates("slice_id")
    return pd.DataFrame({
        "slice_id": rows["slice_id"].tolist(),
        "uri": rows["slice_id"].map(uris.set_index("slice_id")["uri"]).tolist(),
        "split": rows["split"].tolist(),
        "label": np.array(model.classes, dtype=object)[probabilities.argmax(axis=1)],
        "given_label": given,
        "probability": probabilities[:, model.classes.index(model.positive_class)],
        "confidence": probabilities.max(axis=1),
        "probabilities": probabilities.tolist(),
        "promoted": False,
        "reason": "external",
    })  # fmt: skip
