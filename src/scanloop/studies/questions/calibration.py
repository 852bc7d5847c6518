"""Which map makes a head's probabilities mean what they say, where labels are few?"""

from collections.abc import Mapping

from scanloop.calibration.maps import MAPS
from scanloop.calibration.scaling import probabilities_of
from scanloop.evaluation.calibration import honesty
from scanloop.evaluation.metrics import measure
from scanloop.learning.calibrating import calibrate
from scanloop.studies.probing import known_of, mean_over_draws, out_of_fold
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Bench, Cell, Study
from scanloop.studies.vectors import vectors
from scanloop.types import Labels

REPEATS = 2


def arms(_: StudyRequest) -> tuple[str, ...]:
    """The head as it is, each map, and the one that out-of-fold evidence picks."""
    return ("none", *MAPS, "auto")


def measure_cell(cell: Cell, bench: Bench) -> Mapping[str, float]:
    """Errors on the published test part, the mean over some draws of the labels; maps are fitted out of fold.

    Returns:
        ece, its excess over that of a perfect model with these probabilities, classwise_ece, brier; labels;
        test_images.
    """
    data = bench.data(cell.dataset)
    train, test = vectors(bench, cell.dataset, "imagenet" if bench.request.weights else "ssl", cell.seed)

    def judge(rows: Labels) -> Mapping[str, float]:
        known = known_of(bench, cell, train, rows)
        head, folds = out_of_fold(known, data.classes, bench.request.folds, REPEATS, cell.seed)
        said = probabilities_of(head.head.logits(test))
        if cell.arm != "none":
            said = calibrate(folds, cell.arm, seed=cell.seed).calibrator(head.head.logits(test) / head.temperature)
        errors = measure(said, data.test.labels) | honesty(said[None], data.test.labels, seed=cell.seed)
        return errors | {"excess": errors["ece"] - errors["ece_noise"]}

    return mean_over_draws(cell, bench, judge, least=3)


STUDY = Study(
    question="Which map makes a head's probabilities mean what they say, where labels are few?",
    arms=arms,
    measure=measure_cell,
    metrics=("ece", "excess", "classwise_ece", "brier"),
    baseline="none",
    guess_seconds=20.0,
)
