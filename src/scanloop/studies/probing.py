"""The probe that studies share: a tuned logistic head on frozen vectors, judged on the published test part."""

from collections.abc import Callable, Mapping

import numpy as np

from scanloop.evaluation.metrics import measure
from scanloop.learning.calibrating import OutOfFold
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known
from scanloop.learning.heads import TunedHead, tune_head
from scanloop.studies.datasets import draw_labels
from scanloop.studies.study import Bench, Cell
from scanloop.studies.vectors import vectors
from scanloop.types import Half, Labels


def probe_cell(cell: Cell, bench: Bench, source: str) -> Mapping[str, float]:
    """Figures of heads that learn from the cell's share of labels, each the mean over some draws of the labels.

    Args:
        cell: Says how many labels, and which draws of them: all arms see the same.
        bench: The study's.
        source: Of the vectors.

    Returns:
        accuracy, macro_f1, auroc, ece and brier on the published test part; labels; test_images.
    """

    def probe(rows: Labels) -> Mapping[str, float]:
        head, test = tuned_on(cell, bench, source, rows)
        return measure(head.probabilities(test), bench.data(cell.dataset).test.labels)

    return mean_over_draws(cell, bench, probe)


def mean_over_draws(
    cell: Cell, bench: Bench, figures: Callable[[Labels], Mapping[str, float]], least: int = 2
) -> Mapping[str, float]:
    """Mean of each figure over the study's draws of labels, which are the same for all arms; labels; test_images.

    Args:
        cell: Says how many labels, and which draws of them.
        bench: The study's.
        figures: From labelled rows of the training part to the figures of what learnt from them.
        least: Labels of each class, as in `draw_labels`.
    """
    data, seeds = bench.data(cell.dataset), range(cell.seed * 1000, cell.seed * 1000 + bench.request.draws)
    drawn = [draw_labels(data.train.labels, cell.percent, seed, least) for seed in seeds]
    found = [figures(rows) for rows in drawn]
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return means | {"labels": len(drawn[0]), "test_images": len(data.test.labels)}


def tuned_on(cell: Cell, bench: Bench, source: str, rows: Labels) -> tuple[TunedHead, Half]:
    """The tuned head of some labelled rows of the training part, and the test part's vectors."""
    train, test = vectors(bench, cell.dataset, source, cell.seed)
    return tune_head(
        known_of(bench, cell, train, rows), bench.data(cell.dataset).classes, bench.request.folds, cell.seed
    ), test


def known_of(bench: Bench, cell: Cell, train: Half, rows: Labels) -> Known:
    """Rows of the training part as heads take them."""
    part = bench.data(cell.dataset).train
    return Known(rows.astype(object), train[rows], part.labels[rows], part.groups[rows], np.ones(len(rows), bool))


def out_of_fold(known: Known, classes: int, folds: int, repeats: int, seed: int) -> tuple[TunedHead, OutOfFold]:
    """The tuned head on all rows, and what the heads of repeated group cross-validation say of those they never saw.

    Args:
        known: Labelled rows.
        classes: Number of classes.
        folds: Of a round, and of each head's own tuning.
        repeats: Rounds.
        seed: Of the folds.

    Raises:
        TooFewLabelsError: A class has fewer than three groups.
    """
    cuts = group_folds(known.labels, known.groups, folds, repeats, seed)
    logits, temperatures = np.empty((repeats, len(known.labels), classes)), np.empty((repeats, len(known.labels)))
    for cut in cuts:
        tuned = tune_head(known.take(cut.train), classes, folds, cut.seed(seed))
        logits[cut.repeat, cut.test] = tuned.head.logits(known.vectors[cut.test]) / tuned.temperature
        temperatures[cut.repeat, cut.test] = tuned.temperature
    found = OutOfFold(logits, temperatures, known.labels, known.groups, known.drawn, cuts)
    return tune_head(known, classes, folds, seed), found
