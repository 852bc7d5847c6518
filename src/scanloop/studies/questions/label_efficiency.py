"""How many labels does a tuned head on frozen features need, and which features need fewer?"""

from scanloop.studies.probing import probe_cell
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Study


def arms(request: StudyRequest) -> tuple[str, ...]:
    """Features that are at hand: those trained on the set, and ImageNet's where weights are given."""
    return ("ssl", "imagenet") if request.weights else ("ssl",)


STUDY = Study(
    question="How does a tuned logistic head on frozen features gain with the share of labels?",
    arms=arms,
    measure=lambda cell, bench: probe_cell(cell, bench, cell.arm),
    metrics=("accuracy", "auroc", "macro_f1", "ece"),
    baseline="ssl",
    guess_seconds=20.0,
)
