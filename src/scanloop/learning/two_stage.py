"""The whole recipe of `retrain` as one thing that can be cross-validated: head, fine-tuning, and the choice between."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from scanloop.calibration.scaling import fit_temperature
from scanloop.config import PseudoLabelConfig, RetrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.learning.cross_validation import Fold, cross_fitted, group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.finetune import Classifier, Maps, finetune, tail_logits
from scanloop.learning.heads import Head, TunedHead, fit_head, tune_head
from scanloop.learning.pseudo_labels import propose
from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Pseudo:
    """Pseudo-labelled rows to learn from.

    Attributes:
        rows: (n,) indices into the pool.
        labels: (n,) class indices.
    """

    rows: Labels
    labels: Labels


@dataclass(frozen=True)
class Material:
    """Everything that training may use.

    Attributes:
        known: Labelled rows.
        known_maps: float16 (n, c, s, s), their frozen feature maps.
        pool: Unlabelled rows, drawn without a look at their pseudo-labels, so that each fold can judge them anew
            without what the held-out labels chose; empty where none is promoted.
        pool_maps: float16 (m, c, s, s), theirs.
        promoted: Rows of the pool that were promoted, with their classes.
        rule: The rule that promoted them; None for supervised training.
        classes: Number of classes.
    """

    known: Known
    known_maps: Tensor
    pool: Pool
    pool_maps: Tensor
    promoted: Pseudo
    rule: PseudoLabelConfig | None
    classes: int


@dataclass(frozen=True)
class Trained:
    """The model that is kept.

    Attributes:
        model: Trained on every row.
        stage: "frozen features" or "fine-tuned".
        temperature: Fitted on the out-of-fold logits of the randomly drawn rows.
        out_of_fold: (repeats, n, classes) calibrated logits of the drawn rows, each from models that saw neither the
            row's group nor, for its temperature, the row itself.
        cuts: Folds behind them, over all rows.
        log_loss: Out-of-fold log-loss by stage.
    """

    model: Classifier
    stage: str
    temperature: float
    out_of_fold: Float
    cuts: list[Fold]
    log_loss: dict[str, float]


def train(encoder: Encoder, material: Material, config: RetrainConfig) -> Trained:
    """Train both stages, keep the one with the smaller out-of-fold log-loss, and calibrate it.

    Choosing between two by the data that also reports on them flatters the winner slightly; the test split, where a
    catalog has one, is untouched by the choice.

    Raises:
        TooFewLabelsError: A class has fewer than two labelled groups.
    """
    known, plan = material.known, config.cross_validation
    cuts = group_folds(known.labels, known.groups, plan.folds, plan.repeats, plan.seed)
    stages = ("frozen features", "fine-tuned") if config.finetune_epochs else ("frozen features",)
    logits = np.empty((len(stages), plan.repeats, len(known.labels), material.classes))
    for cut in cuts:
        logits[:, cut.repeat, cut.test] = _fold(encoder, material, config, cut)[: len(stages)]
    drawn = known.drawn
    truth = np.tile(known.labels[drawn], plan.repeats)
    stacked = {stage: logits[row][:, drawn].reshape(-1, material.classes) for row, stage in enumerate(stages)}
    temperatures = {stage: fit_temperature(values, truth) for stage, values in stacked.items()}
    losses = {stage: _log_loss(values / temperatures[stage], truth) for stage, values in stacked.items()}
    best = min(stages, key=lambda stage: losses[stage])
    tuned = tune_head(known, material.classes, plan.folds, config.seed)
    head = _head(tuned, material, material.promoted)
    model = Classifier(encoder, head)
    if best == "fine-tuned":
        maps = _maps(material, np.arange(len(known.labels)), material.promoted)
        model = finetune(encoder, head, maps, config, config.seed)
    out_of_fold = cross_fitted(logits[stages.index(best)], known.labels, cuts, drawn)[:, drawn]
    return Trained(model, best, temperatures[best], out_of_fold, cuts, losses)


def _fold(encoder: Encoder, material: Material, config: RetrainConfig, cut: Fold) -> Float:
    """Logits (2, len(test), classes) of both stages, trained on a fold's training rows alone."""
    train_rows = material.known.take(cut.train)
    seed = cut.seed(config.seed)
    tuned = tune_head(train_rows, material.classes, config.cross_validation.folds, seed)
    pseudo = _pseudo_of_fold(tuned, train_rows, material, material.known.take(cut.test))
    head = _head(tuned, material, pseudo, train_rows)
    frozen = head.logits(material.known.vectors[cut.test])
    if not config.finetune_epochs:
        return frozen[None]
    model = finetune(encoder, head, _maps(material, cut.train, pseudo), config, seed)
    return np.stack([frozen, tail_logits(model, material.known_maps[torch.from_numpy(cut.test)])])


def _pseudo_of_fold(tuned: TunedHead, train_rows: Known, material: Material, test_rows: Known) -> Pseudo:
    """Pseudo-labels as the fold's own head would give them, outside of the held-out groups."""
    if material.rule is None:
        return Pseudo(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    proposal = propose(tuned, train_rows, material.pool, material.classes, material.rule)
    keep = proposal.accepted & ~np.isin(material.pool.groups, test_rows.groups)
    return Pseudo(np.flatnonzero(keep), proposal.labels[keep])


def _head(tuned: TunedHead, material: Material, pseudo: Pseudo, known: Known | None = None) -> Head:
    """Head on the labelled rows and some pseudo-labelled ones; the tuned head itself without any."""
    if not len(pseudo.rows):
        return tuned.head
    assert material.rule is not None
    known = known or material.known
    vectors = np.concatenate([known.vectors, material.pool.vectors[pseudo.rows]])
    weights = np.concatenate([np.ones(len(known.labels)), np.full(len(pseudo.rows), material.rule.weight)])
    return fit_head(vectors, np.concatenate([known.labels, pseudo.labels]), material.classes, tuned.c, weights)


def _maps(material: Material, known_rows: Labels, pseudo: Pseudo) -> Maps:
    weight = material.rule.weight if material.rule else 0.0
    values = [material.known_maps[torch.from_numpy(known_rows)], material.pool_maps[torch.from_numpy(pseudo.rows)]]
    labels = np.concatenate([material.known.labels[known_rows], pseudo.labels])
    weights = np.concatenate([np.ones(len(known_rows)), np.full(len(pseudo.rows), weight)])
    return Maps(torch.cat(values), labels, weights)


def _log_loss(logits: Float, labels: Labels) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
