"""What of a trained model's honesty is served: its calibrator for the shares of the classes, and sets of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import CROSS_VALIDATED, Conformal, fit_conformal
from scanloop.calibration.maps import affine
from scanloop.calibration.prior import class_shares, estimate_prior, log_ratio
from scanloop.config import RetrainConfig
from scanloop.errors import ConfigError
from scanloop.grouping import one_a_group
from scanloop.learning.dataset import Known
from scanloop.learning.heads import TunedHead
from scanloop.learning.two_stage import Trained
from scanloop.types import Float, Half


@dataclass(frozen=True)
class Honest:
    """How a model's logits are served.

    Attributes:
        calibrator: Of the model's own logits, the prior that is served included.
        conformal: Thresholds on the probabilities as they are served.
        out_of_fold: (repeats, n, classes) calibrated logits of the drawn rows, the prior included.
        prior: Shares by class: "labelled", "pool" (None without a pool) from so many "pool_images", and "served".
    """

    calibrator: Calibrator
    conformal: Conformal
    out_of_fold: Float
    prior: dict[str, Any]


def make_honest(trained: Trained, known: Known, pool: Half, classes: Sequence[str], config: RetrainConfig) -> Honest:
    """Calibrator, sets and prior of a trained model.

    Args:
        trained: The model.
        known: The labelled rows that it was trained on.
        pool: float16 (m, d) embeddings of unlabelled images, in which the shares of the classes are estimated.
        classes: Their names.
        config: Target prior, alpha.
    """
    labelled = class_shares(known.judging[known.drawn], len(classes))
    estimated = pool_shares(trained.tuned, known, pool, labelled) if len(pool) else None
    served = _served(labelled, estimated, classes, config)
    calibrator, logits = trained.calibrator, trained.out_of_fold
    if config.target_prior != "labelled":
        shift = log_ratio(labelled, served)
        calibrator, logits = replace(calibrator, prior=tuple(shift.tolist())), logits + shift
    groups, labels = known.groups[known.drawn], known.judging[known.drawn]
    rows = np.sort(one_a_group(groups, config.seed))  # images of one are not exchangeable
    conformal = fit_conformal(
        softmax(logits[:, rows], axis=-1),
        labels[rows],
        config.conformal_alpha,
        per_class=config.conformal_per_class,
        guarantee=CROSS_VALIDATED,
    )
    prior = {"labelled": labelled, "pool": estimated, "served": served}
    named = {name: None if shares is None else _named(shares, classes) for name, shares in prior.items()}
    return Honest(calibrator, conformal, logits, named | {"pool_images": len(pool)})


def check_given_prior(config: RetrainConfig, classes: Sequence[str]) -> None:
    """Return if a prior that is given names each class and no other, before anything is trained.

    Raises:
        ConfigError: It does not.
    """
    if config.target_prior == "given" and set(config.given_prior) != set(classes):
        raise ConfigError(f"retrain.given_prior must give a share to each of {', '.join(classes)}, and to no other")


def pool_shares(tuned: TunedHead, known: Known, pool: Half, labelled: Float) -> Float:
    """Shares (classes,) of the classes in the pool, if each class looks the same there as among the labels.

    The head on frozen features, with a map that has a bias a class, fitted on its out-of-fold logits of drawn rows.
    """
    mapped = affine(tuned.out_of_fold[known.drawn], known.judging[known.drawn])
    return estimate_prior(mapped(tuned.head.logits(pool)), labelled)


def _served(labelled: Float, estimated: Float | None, classes: Sequence[str], config: RetrainConfig) -> Float:
    if config.target_prior == "given":
        return np.array([config.given_prior[name] for name in classes])
    if config.target_prior == "pool" and estimated is not None:
        return estimated
    return labelled


def _named(shares: Float, classes: Sequence[str]) -> dict[str, float]:
    return dict(zip(classes, shares.tolist(), strict=True))
