"""What choosing gained over drawing at random, measured on the labels that were bought."""

from typing import Any

import numpy as np
import pandas as pd

from scanloop.calibration.scaling import probabilities_of
from scanloop.evaluation.comparison import Holdout, difference_interval
from scanloop.evaluation.intervals import Resampling
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import CONTROL, TRAIN, Known
from scanloop.learning.heads import fit_head
from scanloop.types import Float, Labels

FOLDS, REPEATS = 5, 6
FEWEST = 5
"""Controls without which nothing is said."""


def control_arm(known: Known, bought: pd.DataFrame, classes: int, c: float, seed: int) -> dict[str, Any] | None:
    """Macro-F1 with as many chosen labels as there are controls, less that with the controls; None where these are few.

    Both arms start from the labels that were given, which also judge, fold by fold; in each repeat the controls meet
    another draw of as many chosen images. A group that is judged is learnt from in neither arm.

    Args:
        known: Labelled rows.
        bought: Rows of `labels.parquet`, with their purpose.
        classes: Number of classes.
        c: Inverse penalty of the heads.
        seed: Of the folds, the draws and the resamples.

    Returns:
        "labels" of each arm, "chosen" that were drawn from, and "macro_f1", the difference with its interval.
    """
    purpose = bought.set_index("slice_id")["purpose"].reindex(known.slice_ids).to_numpy()
    arms = [np.flatnonzero(~known.drawn & (purpose == name)) for name in (CONTROL, TRAIN)]
    given = np.flatnonzero(known.drawn)
    count = min(len(arm) for arm in arms)
    groups = [len(np.unique(known.groups[given][known.labels[given] == label])) for label in range(classes)]
    if count < FEWEST or min(groups) < FEWEST:
        return None
    answers = np.zeros((2, REPEATS, len(known.labels), classes))
    for cut in group_folds(known.labels[given], known.groups[given], FOLDS, REPEATS, seed):
        judged = given[cut.test]
        draw = np.random.default_rng([seed, cut.repeat])
        for arm, rows in enumerate(arms):
            more = draw.permutation(rows)[:count]
            learnt = np.concatenate([given[cut.train], more[~np.isin(known.groups[more], known.groups[judged])]])
            answers[arm, cut.repeat, judged] = _answered(known, learnt, judged, classes, c)
    holdout = Holdout(known.judging[given], known.groups[given])
    gain = difference_interval("macro_f1", answers[1][:, given], answers[0][:, given], holdout, Resampling(seed=seed))
    return {"labels": count, "chosen": len(arms[1]), "macro_f1": gain}


def _answered(known: Known, learnt: Labels, judged: Labels, classes: int, c: float) -> Float:
    head = fit_head(known.vectors[learnt], known.labels[learnt], classes, c)
    return probabilities_of(head.logits(known.vectors[judged]), 1.0)
