"""Do images without labels help an encoder that is trained on images, and a head on frozen features?"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scanloop.calibration.scaling import probabilities_of
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.weights import load_weights
from scanloop.evaluation.metrics import measure
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import tune_head
from scanloop.learning.images.trainer import ImageSet, ImageTrainingConfig, image_logits, train_on_images
from scanloop.learning.semisupervised.policy import SUPERVISED, choose, gather, heads
from scanloop.studies.datasets import MODALITIES, Part, draw_labels
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Bench, Cell, Study
from scanloop.studies.vectors import vectors
from scanloop.types import Labels

ON_IMAGES = ("supervised", "fixmatch", "mean_teacher")
BATCH, REPEATS = 32, 1


def arms(request: StudyRequest) -> tuple[str, ...]:
    """Three trainings on images; with ImageNet's weights also the tuned head on frozen features, and the policy."""
    return (*ON_IMAGES, "head", "policy") if request.weights else ON_IMAGES


def measure_cell(cell: Cell, bench: Bench) -> Mapping[str, float]:
    """Figures on the published test part; every arm of a seed sees the same labels."""
    data = bench.data(cell.dataset)
    rows = draw_labels(data.train.labels, cell.percent, cell.seed * 1000)
    logits = _on_images(cell, bench, rows) if cell.arm in ON_IMAGES else _on_features(cell, bench, rows)
    figures = measure(probabilities_of(logits), data.test.labels)
    return figures | {"labels": len(rows), "test_images": len(data.test.labels)}


def _on_images(cell: Cell, bench: Bench, rows: Labels) -> np.ndarray:
    data, request = bench.data(cell.dataset), bench.request
    encoder = new_encoder(request.encoder, cell.seed)
    preprocess = load_weights(encoder, None, request.input_px)
    rest = np.setdiff1d(np.arange(len(data.train.labels)), rows)
    config = ImageTrainingConfig.model_validate({
        "seed": cell.seed, "method": cell.arm, "modality": MODALITIES[cell.dataset], "batch_size": BATCH,
        "steps": request.epochs * max(1, len(data.train.labels) // (4 * BATCH)),
        "learning_rate": request.learning_rate,
    })  # fmt: skip
    images = ImageSet(
        _pixels(data.train, rows, preprocess), np.eye(data.classes)[data.train.labels[rows]],
        _pixels(data.train, rest, preprocess),
    )  # fmt: skip
    model = train_on_images(encoder, images, preprocess, config)
    return image_logits(model, _pixels(data.test, np.arange(len(data.test.labels)), preprocess), preprocess)


def _on_features(cell: Cell, bench: Bench, rows: Labels) -> np.ndarray:
    data, folds = bench.data(cell.dataset), bench.request.folds
    train, test = vectors(bench, cell.dataset, "imagenet", cell.seed)
    rest = np.setdiff1d(np.arange(len(data.train.labels)), rows)
    groups = data.train.groups
    known = Known(rows.astype(object), train[rows], data.train.labels[rows], groups[rows], np.ones(len(rows), bool))
    pool = Pool(rest.astype(object), train[rest], groups[rest])
    tuned = tune_head(known, data.classes, folds, cell.seed)
    chosen = SUPERVISED
    if cell.arm == "policy":
        chosen = choose(gather(known, pool, data.classes, folds, REPEATS, cell.seed)).name
    return heads(tuned, known, pool, [] if chosen == SUPERVISED else [chosen])[chosen].logits(test) / tuned.temperature


def _pixels(part: Part, rows: Labels, preprocess: Preprocess) -> Tensor:
    squares = np.stack([preprocess.square(part.images[row]) for row in rows])
    return torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))


STUDY = Study(
    question="Do images without labels help training on images, and a head on frozen features?",
    arms=arms,
    measure=measure_cell,
    metrics=("accuracy", "auroc", "macro_f1", "ece"),
    baseline="supervised",
    guess_seconds=60.0,
)
