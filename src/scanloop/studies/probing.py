"""The probe that studies share: a tuned logistic head on frozen vectors, judged on the published test part."""

from collections.abc import Mapping

import numpy as np

from scanloop.evaluation.metrics import measure
from scanloop.learning.dataset import Known
from scanloop.learning.heads import tune_head
from scanloop.studies.datasets import draw_labels
from scanloop.studies.study import Bench, Cell
from scanloop.studies.vectors import vectors


def probe_cell(cell: Cell, bench: Bench, source: str) -> Mapping[str, float]:
    """Figures of a head that learns from the cell's labels: accuracy, macro_f1, auroc, ece, brier, labels, test_images.

    Args:
        cell: Says how many labels, and which draw of them.
        bench: The study's.
        source: Of the vectors.
    """
    data = bench.data(cell.dataset)
    train, test = vectors(bench, cell.dataset, source, cell.seed)
    rows = draw_labels(data.train.labels, cell.percent, cell.seed)
    known = Known(
        rows.astype(object), train[rows], data.train.labels[rows], data.train.groups[rows], np.ones(len(rows), bool)
    )
    head = tune_head(known, data.classes, bench.request.folds, cell.seed)
    found = measure(head.probabilities(test), data.test.labels)
    return found | {"labels": len(rows), "test_images": len(data.test.labels)}
