"""The whole recipe of `retrain` as one thing that can be cross-validated: head, fine-tuning, and the choice between."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.scaling import fit_temperature
from scanloop.config import RetrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.evaluation.calibration import log_losses
from scanloop.learning.calibrating import Calibrated, OutOfFold, calibrate
from scanloop.learning.cross_validation import Fold, group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.finetune import Classifier, Maps, finetune, tail_logits
from scanloop.learning.heads import TunedHead, tune_head
from scanloop.learning.semisupervised.method import Targets, fit_on_targets
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.types import Float, Labels


@dataclass(frozen=True)
class Material:
    """Everything that training may use.

    Attributes:
        known: Labelled rows.
        known_maps: float16 (n, c, s, s), their frozen feature maps.
        pool: Unlabelled rows, drawn without a look at what is said of them, so that each fold can judge them anew
            without what the held-out labels chose; empty where nothing is learnt from a pool.
        pool_maps: float16 (m, c, s, s), theirs; empty where the recipe promotes none, as no others are tuned on.
        targets: The pool's soft labels and weights, from all labels.
        recipe: How each fold makes its own.
        classes: Number of classes.
    """

    known: Known
    known_maps: Tensor
    pool: Pool
    pool_maps: Tensor
    targets: Targets
    recipe: Recipe
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
    truth = np.tile(known.judging[known.drawn], plan.repeats)
    stacked = {stage: logits[row][:, known.drawn].reshape(-1, material.classes) for row, stage in enumerate(stages)}
    losses = {
        stage: float(log_losses(values / fit_temperature(values, truth), truth).mean())
        for stage, values in stacked.items()
    }
    best = min(stages, key=lambda stage: losses[stage])
    judged = OutOfFold(logits[stages.index(best)], temperatures, known.judging, known.groups, known.drawn, cuts)
    calibrated = calibrate(judged, config.calibration, seed=config.seed)
    tuned = tune_head(known, material.classes, plan.folds, config.seed)
    head = fit_on_targets(tuned, known, material.pool, material.targets)
    model = Classifier(encoder, head)
    if best == "fine-tuned":
        maps = _maps(material, np.arange(len(known.labels)), np.arange(len(material.pool.groups)), material.targets)
        model = finetune(encoder, head, maps, config, config.seed)
    return Trained(model, best, tuned, calibrated, known.drawn, cuts, losses)


def _fold(encoder: Encoder, material: Material, config: RetrainConfig, cut: Fold) -> tuple[Float, float]:
    """Logits (stages, len(test), classes), trained on a fold's training rows alone, over their head's temperature."""
    train_rows = material.known.take(cut.train)
    seed = cut.seed(config.seed)
    tuned = tune_head(train_rows, material.classes, config.cross_validation.folds, seed)
    left = np.flatnonzero(~np.isin(material.pool.groups, material.known.groups[cut.test]))
    pool = material.pool.take(left)
    targets = material.recipe.targets(tuned, train_rows, pool)
    head = fit_on_targets(tuned, train_rows, pool, targets)
    frozen = head.logits(material.known.vectors[cut.test])
    if not config.finetune_epochs:
        return frozen[None] / tuned.temperature, tuned.temperature
    model = finetune(encoder, head, _maps(material, cut.train, left, targets), config, seed)
    fine_tuned = tail_logits(model, material.known_maps[torch.from_numpy(cut.test)])
    return np.stack([frozen, fine_tuned]) / tuned.temperature, tuned.temperature


def _maps(material: Material, known_rows: Labels, pool_rows: Labels, targets: Targets) -> Maps:
    """Feature maps of labelled rows, and of the pool's promoted ones; these weigh no more than those together.

    Soft labels teach the head alone: they know what the frozen features know, and would hold the moving ones back.
    """
    kept = targets.promoted
    weights = targets.weights[kept] * min(1.0, len(known_rows) / max(targets.weights[kept].sum(), 1e-12))
    values = [material.known_maps[torch.from_numpy(known_rows)], material.pool_maps[torch.from_numpy(pool_rows[kept])]]
    given = np.eye(material.classes)[material.known.labels[known_rows]]
    probabilities = np.concatenate([given, targets.probabilities[kept]])
    return Maps(torch.cat(values), probabilities, np.concatenate([np.ones(len(known_rows)), weights]))
