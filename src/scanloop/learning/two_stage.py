"""The whole recipe of `retrain` as one thing that can be cross-validated: head, fine-tuning, and the choice between."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch import Tensor

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.scaling import fit_temperature
from scanloop.config import PseudoLabelConfig, RetrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.learning.calibrating import Calibrated, OutOfFold, calibrate
from scanloop.learning.cross_validation import Fold, group_folds
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
        tuned: The head on frozen features and labels alone, with the temperature that its logits are in units of.
        calibrated: The calibrator, chosen and fitted on the out-of-fold logits of the randomly drawn rows.
        drawn: (n,) these rows.
        cuts: Folds behind them, over all rows.
        log_loss: Out-of-fold log-loss by stage.
    """

    model: Classifier
    stage: str
    tuned: TunedHead
    calibrated: Calibrated
    drawn: npt.NDArray[np.bool_]
    cuts: list[Fold]
    log_loss: dict[str, float]

    @property
    def calibrator(self) -> Calibrator:
        """The map of the model's own logits."""
        found = self.calibrated.calibrator
        return found if found.method == "none" else found.rescaled(self.tuned.temperature)

    @property
    def out_of_fold(self) -> Float:
        """Calibrated logits (repeats, n, classes) of the drawn rows, from models and calibrators that saw none of them.

        The models did not see the rows' groups, the calibrators not the rows.
        """
        return self.calibrated.logits[:, self.drawn]


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
    temperatures = np.empty(logits.shape[1:3])
    for cut in cuts:
        found, temperature = _fold(encoder, material, config, cut)
        logits[:, cut.repeat, cut.test] = found
        temperatures[cut.repeat, cut.test] = temperature
    truth = np.tile(known.labels[known.drawn], plan.repeats)
    stacked = {stage: logits[row][:, known.drawn].reshape(-1, material.classes) for row, stage in enumerate(stages)}
    losses = {stage: _log_loss(values / fit_temperature(values, truth), truth) for stage, values in stacked.items()}
    best = min(stages, key=lambda stage: losses[stage])
    judged = OutOfFold(logits[stages.index(best)], temperatures, known.labels, known.groups, known.drawn, cuts)
    calibrated = calibrate(judged, config.calibration, seed=config.seed)
    tuned = tune_head(known, material.classes, plan.folds, config.seed)
    head = _head(tuned, material, material.promoted)
    model = Classifier(encoder, head)
    if best == "fine-tuned":
        maps = _maps(material, np.arange(len(known.labels)), material.promoted)
        model = finetune(encoder, head, maps, config, config.seed)
    return Trained(model, best, tuned, calibrated, known.drawn, cuts, losses)


def _fold(encoder: Encoder, material: Material, config: RetrainConfig, cut: Fold) -> tuple[Float, float]:
    """Logits (stages, len(test), classes), trained on a fold's training rows alone, over their head's temperature."""
    train_rows = material.known.take(cut.train)
    seed = cut.seed(config.seed)
    tuned = tune_head(train_rows, material.classes, config.cross_validation.folds, seed)
    pseudo = _pseudo_of_fold(tuned, train_rows, material, material.known.take(cut.test))
    head = _head(tuned, material, pseudo, train_rows)
    frozen = head.logits(material.known.vectors[cut.test])
    if not config.finetune_epochs:
        return frozen[None] / tuned.temperature, tuned.temperature
    model = finetune(encoder, head, _maps(material, cut.train, pseudo), config, seed)
    fine_tuned = tail_logits(model, material.known_maps[torch.from_numpy(cut.test)])
    return np.stack([frozen, fine_tuned]) / tuned.temperature, tuned.temperature


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
