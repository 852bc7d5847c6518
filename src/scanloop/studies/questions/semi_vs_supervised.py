"""Do images without labels help an encoder that is trained on images, and a head on frozen features?"""

from collections.abc import Mapping

import numpy as np

from scanloop.calibration.scaling import probabilities_of
from scanloop.evaluation.metrics import measure
from scanloop.learning.dataset import Pool
from scanloop.learning.heads import tune_head
from scanloop.learning.semisupervised.policy import SUPERVISED, choose, gather, heads
from scanloop.studies.datasets import draw_labels
from scanloop.studies.probing import known_of
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Bench, Cell, Study
from scanloop.studies.training import trained_on_images
from scanloop.studies.vectors import vectors
from scanloop.types import Labels

ON_IMAGES = ("supervised", "fixmatch", "mean_teacher")
REPEATS = 1


def arms(request: StudyRequest) -> tuple[str, ...]:
    """Three trainings on images; with ImageNet's weights also the tuned head on frozen features, and the policy."""
    return (*ON_IMAGES, "head", "policy") if request.weights else ON_IMAGES


def measure_cell(cell: Cell, bench: Bench) -> Mapping[str, float]:
    """Figures on the published test part; every arm of a seed sees the same labels."""
    data = bench.data(cell.dataset)
    rows = draw_labels(data.train.labels, cell.percent, cell.seed * 1000)
    on_images = cell.arm in ON_IMAGES
    logits = trained_on_images(cell, bench, rows, "random", cell.arm) if on_images else _on_features(cell, bench, rows)
    figures = measure(probabilities_of(logits), data.test.labels)
    return figures | {"labels": len(rows), "test_images": len(data.test.labels)}


def _on_features(cell: Cell, bench: Bench, rows: Labels) -> np.ndarray:
    data, folds = bench.data(cell.dataset), bench.request.folds
    train, test = vectors(bench, cell.dataset, "imagenet", cell.seed)
    rest = np.setdiff1d(np.arange(len(data.train.labels)), rows)
    known = known_of(bench, cell, train, rows)
    pool = Pool(rest.astype(object), train[rest], data.train.groups[rest])
    tuned = tune_head(known, data.classes, folds, cell.seed)
    chosen = SUPERVISED
    if cell.arm == "policy":
        chosen = choose(gather(known, pool, data.classes, folds, REPEATS, cell.seed)).name
    return heads(tuned, known, pool, [] if chosen == SUPERVISED else [chosen])[chosen].logits(test) / tuned.temperature


STUDY = Study(
    question="Do images without labels help training on images, and a head on frozen features?",
    arms=arms,
    measure=measure_cell,
    metrics=("accuracy", "auroc", "macro_f1", "ece"),
    baseline="supervised",
    guess_seconds=60.0,
)
