"""Validate externally: a bundle as it is, judged on a labelled set from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.artifacts import read_table, write_json, write_table
from scanloop.build import scratch, step
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle, read_learnt
from scanloop.config import ExternalConfig
from scanloop.drift.scores import permutation_test
from scanloop.errors import TooFewLabelsError
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.external import external_metrics, matched, unpaired_difference
from scanloop.evaluation.holdout import probabilities_of
from scanloop.evaluation.intervals import Resampling
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
def validate_external(config: ExternalConfig, *, catalog: Path, bundle: Path, output: Path) -> ExternalSummary:
    """Judge a bundle on the labelled slices of a foreign catalog, with its own temperature and a threshold set before.

    Slices from which the model learnt, byte for byte, are left out and counted. Images of its patients under other
    bytes cannot be told from here.

    Args:
        config: Threshold, names of classes, resamples.
        catalog: Artifact of `ingest` of the foreign set.
        bundle: Model to judge.
        output: Directory for what was found.

    Raises:
        ConfigError: A label of the set is no class of the model.
        TooFewLabelsError: No labelled slice is there to judge.
    """
    model = read_bundle(bundle)
    manifest = read_table(catalog, "manifest")
    rows = manifest[manifest["label"].notna()]
    if config.split != "all":
        rows = rows[rows["split"] == config.split]
    known = rows["slice_id"].isin(set(read_learnt(bundle)["slice_id"]))
    rows, left_out = rows[~known], int(known.sum())
    if rows.empty:
        raise TooFewLabelsError(
            f"{catalog}: no labelled image of split {config.split} that the model did not learn from"
        )
    given = matched(rows["label"].tolist(), config.classes, model.classes)
    scored = Scorer(catalog, scratch(output))(model, rows)
    probabilities = np.stack(scored.loc[rows["slice_id"]].tolist())
    labels = np.array([model.classes.index(name) for name in given], dtype=np.int64)
    holdout = Holdout(labels, rows["group_id"].to_numpy(dtype=str), config.bins)
    plan = Resampling(config.resamples, config.confidence, config.seed)
    found = external_metrics(probabilities, holdout, model.classes, model.positive_class, config.threshold, plan)
    promised = model.about.get("metrics", {})
    found |= {
        "model": model.digest,
        "calibration": model.calibrator.method,
        "left_out_as_learnt_from": left_out,
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
