"""From an encoder trained without labels: is a head on its vectors enough, or should the encoder learn as well?"""

from collections.abc import Mapping

from scanloop.calibration.scaling import probabilities_of
from scanloop.evaluation.calibration import noise_floor
from scanloop.evaluation.metrics import measure
from scanloop.studies.datasets import draw_labels
from scanloop.studies.probing import tuned_on
from scanloop.studies.study import Bench, Cell, Study
from scanloop.studies.training import trained_on_images

TRAINED = {
    "supervised": ("random", "supervised", 1.0),
    "fine_tuned": ("ssl", "supervised", 0.3),
    "fine_tuned_mean_teacher": ("ssl", "mean_teacher", 0.3),
}
"""Start, method and share of the learning rate of each arm that trains on images."""


def measure_cell(cell: Cell, bench: Bench) -> Mapping[str, float]:
    """Figures on the published test part, "excess" the ECE over a perfect model's; arms of a seed share the labels."""
    data = bench.data(cell.dataset)
    rows = draw_labels(data.train.labels, cell.percent, cell.seed * 1000)
    if cell.arm == "probe":
        head, test = tuned_on(cell, bench, "ssl", rows)
        said = head.probabilities(test)
    else:
        start, method, share = TRAINED[cell.arm]
        said = probabilities_of(trained_on_images(cell, bench, rows, start, method, share))
    found = measure(said, data.test.labels)
    found["excess"] = found["ece"] - float(noise_floor(said, seed=cell.seed).mean())
    return found | {"labels": len(rows), "test_images": len(data.test.labels)}


STUDY = Study(
    question="After training without labels: a head on frozen features, or the encoder trained on as well?",
    arms=lambda _: ("supervised", "probe", "fine_tuned", "fine_tuned_mean_teacher"),
    measure=measure_cell,
    metrics=("accuracy", "auroc", "macro_f1", "ece", "excess"),
    baseline="supervised",
    guess_seconds=60.0,
)
