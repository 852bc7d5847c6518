"""What a bundle says of a trained model: its calibration, its points, what it knows, and what it stands on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanloop.bundle.abstention import Abstention
from scanloop.bundle.exemplars import Exemplars
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.points import OperatingPoints
from scanloop.calibration.scaling import probabilities_of
from scanloop.config import RetrainConfig
from scanloop.learning.dataset import Known
from scanloop.learning.honest import Honest
from scanloop.learning.points import choose_points
from scanloop.learning.slices import Slices
from scanloop.learning.two_stage import Material, Trained
from scanloop.provenance import digest
from scanloop.types import Interval

REFERENCE_SLICES = 16


@dataclass(frozen=True)
class Shown:
    """What of the archive the bundle shows.

    Attributes:
        slices: Of the catalog.
        exemplars: Labelled images, in the model's own embedding.
        abstention: The rule by which it abstains.
    """

    slices: Slices
    exemplars: Exemplars
    abstention: Abstention


def describe(
    trained: Trained,
    honest: Honest,
    material: Material,
    catalog: Mapping[str, Any],
    shown: Shown,
    metrics: Mapping[str, Interval],
    config: RetrainConfig,
) -> BundleFacts:
    """Everything about a trained model but its weights.

    Args:
        trained: The model.
        honest: How its logits are served.
        material: What it learnt from.
        catalog: Content of `catalog.json`.
        shown: What of the archive the bundle shows.
        metrics: Out of fold.
        config: Of the step.
    """
    known, classes = material.known, tuple(catalog["classes"])
    every = max(1, len(known.slice_ids) // REFERENCE_SLICES)
    reference = shown.slices.images(known.slice_ids[::every][:REFERENCE_SLICES])
    name = trained.model.encoder.name
    looks = "" if trained.tuned.width is None else " on the first encoder alone"
    return BundleFacts(
        architecture=f"{name} + linear head{looks}, {trained.stage}",
        encoder=name,
        classes=classes,
        positive_class=catalog["positive_class"],
        preprocess=shown.slices.preprocess,
        calibration=_calibration(trained, honest, known, config),
        conformal=honest.conformal,
        reference=tuple(reference),
        data_digest=digest([catalog["data_digest"], sorted(zip(known.slice_ids, known.labels.tolist(), strict=True))]),
        counts=_counts_of(material, classes),
        metrics=metrics,
        min_side_px=catalog["min_side_px"],
        max_pixels=catalog["max_pixels"],
        points=_points(known, honest, catalog, config),
        abstention=shown.abstention,
        exemplars=shown.exemplars,
        gates={name: getattr(config.gates, name) for name in ("float32", "bf16", "int8")},
        training={"stage": trained.stage, "out_of_fold_log_loss": trained.log_loss} | config.model_dump(mode="json"),
    )


def _calibration(trained: Trained, honest: Honest, known: Known, config: RetrainConfig) -> Calibration:
    drawn = known.drawn
    return Calibration(
        honest.calibrator,
        f"{honest.calibrator.method} ({'chosen' if config.calibration == 'auto' else 'configured'}), on out-of-fold"
        " logits of randomly drawn labels, by repeated group cross-validation",
        int(drawn.sum()),
        len(np.unique(known.groups[drawn])),
        trained.calibrated.candidates,
        trained.calibrated.gains,
        honest.prior,
    )


def _counts_of(material: Material, classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    taught = material.targets
    return {
        "labelled": _counts(material.known.labels, classes),
        "pseudo_labelled": _counts(taught.probabilities[taught.weights > 0].argmax(axis=1), classes),
    }


def _points(known: Known, honest: Honest, catalog: Mapping[str, Any], config: RetrainConfig) -> OperatingPoints:
    """Chosen as `evaluate` chooses them, on the first repeat: each drawn image by a model that never saw its group."""
    classes = list(catalog["classes"])
    index = classes.index(catalog["positive_class"])
    scores = probabilities_of(honest.out_of_fold[0])[:, index]
    return choose_points(scores, known.judging[known.drawn] == index, index, len(classes), config.operating_points)


def _counts(labels: Any, classes: tuple[str, ...]) -> dict[str, int]:
    return {name: int((labels == index).sum()) for index, name in enumerate(classes)}
