"""The training on images that studies share: an encoder and its head, with or without a pool."""

import numpy as np

from scanloop.learning.images.trainer import ImageSet, ImageTrainingConfig, image_logits, train_on_images
from scanloop.studies.datasets import MODALITIES
from scanloop.studies.study import Bench, Cell
from scanloop.studies.vectors import encoder_of, pixels
from scanloop.types import Float, Labels

BATCH = 32


def trained_on_images(
    cell: Cell, bench: Bench, rows: Labels, start: str, method: str, rate_share: float = 1.0
) -> Float:
    """Logits (n, classes) of the published test part by an encoder that was trained on labelled images.

    Args:
        cell: Set, share of labels and seed.
        bench: The study's; `training_epochs` passes over the training part in steps of 128, each an update.
        rows: Labelled images; the rest of the training part is the pool.
        start: Source of the encoder before the training, as in `vectors`.
        method: "supervised", "fixmatch" or "mean_teacher".
        rate_share: Share of the study's learning rate.
    """
    data, request = bench.data(cell.dataset), bench.request
    encoder, preprocess = encoder_of(bench, cell.dataset, start, cell.seed)
    rest = np.setdiff1d(np.arange(len(data.train.labels)), rows)
    config = ImageTrainingConfig.model_validate({
        "seed": cell.seed, "method": method, "modality": MODALITIES[cell.dataset], "batch_size": BATCH,
        "steps": request.training_epochs * max(1, len(data.train.labels) // (4 * BATCH)),
        "learning_rate": request.learning_rate * rate_share,
    })  # fmt: skip
    images = ImageSet(
        pixels(data.train, rows, preprocess),
        np.eye(data.classes)[data.train.labels[rows]],
        pixels(data.train, rest, preprocess),
    )
    model = train_on_images(encoder, images, preprocess, config)
    return image_logits(model, pixels(data.test, np.arange(len(data.test.labels)), preprocess), preprocess)
