"""Whether the engine that serves is as calibrated as the one that was measured: both on the held-out images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.artifacts import read_table
from scanloop.bundle.engines.engine import Engine
from scanloop.bundle.predict import Bundle
from scanloop.errors import ImageError, TooFewLabelsError
from scanloop.evaluation.comparison import Holdout, metric_interval
from scanloop.evaluation.intervals import Resampling, bootstrap_interval, exact_interval
from scanloop.scoring.scorer import Pace, batches
from scanloop.scoring.sources import slices_of, squares_of_slices
from scanloop.types import Float, Image, Interval, Labels

METRICS = ("accuracy", "ece")


def verify(bundle: Bundle, plain: Engine, catalog: Path, pace: Pace) -> dict[str, Any]:
    """What the bundle's engine and the plain one say of a catalog's test images, and how far they differ.

    Args:
        bundle: Read with the engine that is to serve.
        plain: ONNX Runtime in float32 over the same network.
        catalog: Of `ingest`; the labelled slices of its test split judge, labels of the archive alone.
        pace: Batches and threads.

    Returns:
        Engine, precision, n and groups; for either engine accuracy, ECE and log-loss with intervals over groups; the
        difference of the log-losses; the largest and the mean difference of a probability, images whose label changes
        and the share of groups with such an image, the bundle's gate for the precision, and whether it holds.

    Raises:
        TooFewLabelsError: The catalog has no labelled test image, or labels that the bundle does not know.
    """
    rows = read_table(catalog, "manifest")
    rows = rows[(rows["split"] == "test") & rows["label"].notna()]
    if rows.empty or not set(rows["label"]) <= set(bundle.classes):
        known = ", ".join(bundle.classes)
        raise TooFewLabelsError(f"{catalog}: its test split has no labels, or others than {known}; nothing can judge")
    labels = np.array([bundle.classes.index(label) for label in rows["label"]], dtype=np.int64)
    holdout = Holdout(labels, rows["group_id"].to_numpy(dtype=str))
    found: tuple[list[Float], list[Float]] = ([], [])
    for batch in batches(
        squares_of_slices(bundle, catalog, list(slices_of(rows, pd.Series(dtype=str))), pace), pace.batch
    ):
        squares: Image = np.stack([one.pixels for one in batch if not isinstance(one.pixels, ImageError)])
        for engine, kept in zip((bundle.engine, plain), found, strict=True):
            kept.append(bundle.calibrator(engine.run_squares(squares).logits.astype(np.float64)))
    served, exact = (np.concatenate(kept) for kept in found)
    return _compared(bundle, served, exact, holdout)


def _compared(bundle: Bundle, served: Float, exact: Float, holdout: Holdout) -> dict[str, Any]:
    difference = np.abs(served - exact)
    changed = bundle.points.labels(served) != bundle.points.labels(exact)
    gate, largest = float(bundle.gates[bundle.engine.precision]), float(difference.max())
    groups = len(set(holdout.groups.tolist()))
    lost = _losses(served, holdout.labels) - _losses(exact, holdout.labels)
    return {
        "model_digest": bundle.digest,
        "engine": bundle.engine.name,
        "precision": bundle.engine.precision,
        "split": "test",
        "n": len(changed),
        "groups": groups,
        "served": _measured(served, holdout),
        "onnxruntime_float32": _measured(exact, holdout),
        "log_loss_difference": _mean(lost, holdout),
        "largest_difference": largest,
        "mean_difference": float(difference.mean()),
        "changed_labels": int(changed.sum()),
        "changed_groups": exact_interval(len(set(holdout.groups[changed].tolist())), groups),
        "gate": gate,
        "within_gate": largest <= gate,
    }


def _measured(probabilities: Float, holdout: Holdout) -> dict[str, Interval]:
    found = {name: metric_interval(name, probabilities, holdout, Resampling()) for name in METRICS}
    return found | {"log_loss": _mean(_losses(probabilities, holdout.labels), holdout)}


def _losses(probabilities: Float, labels: Labels) -> Float:
    """Negative logarithm of each label's probability; those below 1e-12 count as that."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(chosen, 1e-12)))


def _mean(values: Float, holdout: Holdout) -> Interval:
    statistic: Callable[[Float], Float] = lambda weights: weights @ values / weights.sum(axis=1)  # noqa: E731 - one line
    return bootstrap_interval(statistic, holdout.groups)
