"""Does training an encoder on the images without labels help a head that learns from few labels?"""

from scanloop.studies.probing import probe_cell
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Study


def arms(request: StudyRequest) -> tuple[str, ...]:
    """The random start, the same start trained without labels, and ImageNet's weights where they are given."""
    return ("random", "ssl", "imagenet") if request.weights else ("random", "ssl")


STUDY = Study(
    question="Does self-supervised training on the set's own images help where labels are few?",
    arms=arms,
    measure=lambda cell, bench: probe_cell(cell, bench, cell.arm),
    metrics=("accuracy", "auroc", "macro_f1", "ece"),
    baseline="random",
    guess_seconds=20.0,
)
