"""The linear head on frozen features: logistic regression, tuned and calibrated out of fold."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from scanloop.calibration.scaling import fit_temperature, probabilities_of
from scanloop.embedding.blocks import blocks
from scanloop.evaluation.calibration import log_losses
from scanloop.learning.choosing import choose
from scanloop.learning.cross_validation import Fold, group_folds
from scanloop.learning.dataset import Known
from scanloop.types import Float, Half, Labels, Vectors

REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for C, the inverse strength of the L2 penalty on standardised features."""

SURE = 1.645
"""Standard errors by which a second encoder must lower the log-loss: the lower 95 % bound of its gain is above zero."""

LEAST_SPREAD = 0.03
"""Least divisor of a feature, in medians of all features' standard deviations. One that is silent in nearly all of a
hundred rows has a tiny deviation there; divided by it, the first image in which it speaks gets a logit of hundreds."""


@dataclass(frozen=True)
class Head:
    """A linear classifier.

    Attributes:
        weights: (d, classes).
        bias: (classes,).
    """

    weights: Float
    bias: Float

    def logits(self, vectors: Vectors) -> Float:
        """Scores before softmax, (n, classes), of vectors (n, d)."""
        scores = np.empty((len(vectors), len(self.bias)))
        for rows in blocks(len(vectors)):  # a pool of millions is not copied into float64 whole
            scores[rows] = vectors[rows].astype(np.float64) @ self.weights + self.bias
        return scores

    def padded(self, dimension: int) -> "Head":
        """The same for vectors with further columns, which weigh nothing."""
        missing = dimension - len(self.weights)
        return Head(np.pad(self.weights, ((0, missing), (0, 0))), self.bias) if missing else self


@dataclass(frozen=True)
class TunedHead:
    """A head with the strength, the encoders and the temperature that held-out groups chose.

    Attributes:
        head: Trained on every row.
        c: Chosen inverse penalty.
        temperature: Fitted on the out-of-fold logits at this C.
        out_of_fold: (n, classes) logits of each row from a head that never saw its group, before the temperature.
        width: Leading columns of a vector that are looked at; None for all.
    """

    head: Head
    c: float
    temperature: float
    out_of_fold: Float
    width: int | None = None

    def seen(self, vectors: Half) -> Half:
        """What of vectors (n, d) is looked at: (n, d) or those of the first encoder."""
        return vectors[:, : self.width]

    def probabilities(self, vectors: Vectors) -> Float:
        """Calibrated probabilities (n, classes) of vectors (n, d)."""
        return probabilities_of(self.head.logits(vectors), self.temperature)


def fit_head(vectors: Half | Float, labels: Labels, classes: int, c: float, weights: Float | None = None) -> Head:
    """Logistic regression on standardised features, folded back into plain weights.

    Args:
        vectors: (n, d).
        labels: (n,) class indices; every class occurs.
        classes: Number of classes.
        c: Inverse strength of the L2 penalty.
        weights: (n,) weight of each row; None weighs all alike.
    """
    values = vectors.astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    std = np.maximum(std, LEAST_SPREAD * np.median(std))
    std[std < 1e-8] = 1.0
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty on separable rows has no finite optimum
        model = LogisticRegression(C=c, max_iter=300).fit((values - mean) / std, labels, sample_weight=weights)
    coefficients, intercept = model.coef_, model.intercept_
    if classes == 2:  # scikit-learn keeps one row for two classes; softmax over (-z/2, z/2) is its sigmoid of z
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    plain = (coefficients / std).T
    return Head(plain, intercept - mean @ plain)


def tune_head(known: Known, classes: int, folds: int, seed: int) -> TunedHead:
    """Head whose penalty, encoders and temperature are chosen by group cross-validation on the rows given.

    Rows that were not drawn at random are learnt from, but choose nothing: their temperature would not be the pool's.
    Of two encoders the second is looked at where the lower 95 % bound of what the log-loss gains by it is above zero.

    Args:
        known: Labelled rows.
        classes: Number of classes.
        folds: Folds of one round of group cross-validation.
        seed: Seed of the folds.

    Raises:
        TooFewLabelsError: A class has fewer than two groups.
    """
    cuts = group_folds(known.labels, known.groups, folds, 1, seed)
    judges = known.drawn if len(np.unique(known.judging[known.drawn])) > 1 else np.ones_like(known.drawn)
    widths = [None] if known.first is None else [known.first, None]
    found = {str(width): _tuned(known, classes, cuts, judges, width) for width in widths}
    kept = choose({name: losses for name, (_, losses) in found.items()}, known.groups[judges], SURE)
    return found[kept][0]


def _tuned(
    known: Known, classes: int, cuts: list[Fold], judges: npt.NDArray[np.bool_], width: int | None
) -> tuple[TunedHead, Float]:
    """The best head on the leading columns of the vectors, and the out-of-fold log-losses (j,) of those that judge."""
    vectors, labels = known.vectors[:, :width], known.judging[judges]
    best: tuple[float, float, float, Float, Float] | None = None
    for c in REGULARISATION:
        logits = np.empty((len(known.labels), classes))
        for cut in cuts:
            head = fit_head(vectors[cut.train], known.labels[cut.train], classes, c)
            logits[cut.test] = head.logits(vectors[cut.test])
        temperature = fit_temperature(logits[judges], labels)
        losses = log_losses(logits[judges] / temperature, labels)
        if best is None or losses.mean() < best[0]:
            best = (float(losses.mean()), c, temperature, logits, losses)
    assert best is not None
    _, c, temperature, logits, losses = best
    head = fit_head(vectors, known.labels, classes, c).padded(known.vectors.shape[1])
    return TunedHead(head, c, temperature, logits, width), losses
