"""How far should two views of an image differ, where an encoder is trained without labels?"""

from dataclasses import replace

from scanloop.studies.probing import probe_cell
from scanloop.studies.study import Study

STUDY = Study(
    question="Weak or strong views, where an encoder is trained without labels?",
    arms=lambda _: ("weak", "strong"),
    measure=lambda cell, bench: probe_cell(
        cell, replace(bench, request=bench.request.model_copy(update={"augmentation": cell.arm})), "ssl"
    ),
    metrics=("accuracy", "auroc", "macro_f1", "ece"),
    baseline="weak",
    guess_seconds=20.0,
)
