"""How a model bears altered images: what changes in its metrics, or in its answers alone where labels cannot judge.

A model that learnt from an image knows its label: on such images a fall of accuracy would be understated. Where no
labelled image was kept from the deployed model, only what needs no label is measured, on images that it never saw: how
often the answer stays, and how the confidence moves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from scanloop.evaluation.alterations import ALTERATIONS, Alteration
from scanloop.evaluation.comparison import Holdout, difference_interval, metric_interval
from scanloop.evaluation.intervals import Resampling, bootstrap_interval, group_index
from scanloop.types import Float, Groups, Image, Interval, Labels

Predict: TypeAlias = Callable[[Sequence[Image]], Float]
"""From slices to probabilities (n, classes)."""

METRICS = ("accuracy", "macro_f1", "auroc", "ece")


@dataclass(frozen=True)
class Subjects:
    """Images to alter.

    Attributes:
        basis: "test": labelled and never learnt from; "unseen": unlabelled, never learnt from; "learnt": learnt from,
            where nothing else is there.
        slice_ids: (n,).
        groups: (n,).
        labels: (n,) class indices, which only the basis "test" has.
        images: (n,) slices, uint8.
    """

    basis: str
    slice_ids: Sequence[str]
    groups: Groups
    labels: Labels | None
    images: Sequence[Image]


EXPLANATIONS: Mapping[str, str] = {
    "test": "Measured on labelled images of the test split, from which the model learnt nothing.",
    "unseen": (
        "No labelled image was kept from the deployed model, so its errors on altered images cannot be counted "
        "honestly. Measured is, on images without a label that it never learnt from, how often its answer stays."
    ),
    "learnt": (
        "The model learnt from every image at hand. How often its answer stays is measured on these, and images that "
        "it knows are borne better than new ones."
    ),
}


def robustness(
    predict: Predict,
    subjects: Subjects,
    plan: Resampling,
    bins: int,
    alterations: Sequence[Alteration] = ALTERATIONS,
) -> dict[str, Any]:
    """Content of `robustness.json`.

    Every alteration is compared with the same images unaltered, paired; intervals resample groups and hold for one
    figure each, not for all of them together.

    Args:
        predict: The deployed model.
        subjects: Images, at least one.
        plan: Resamples, confidence and the seed, which also draws the noise.
        bins: Bins of the ECE.
        alterations: What is tried.

    Returns:
        "reference" holds the metrics of the unaltered images and each row's "changes" those of the altered ones minus
        these; both are empty without labels.
    """
    before = predict(subjects.images)
    holdout = None if subjects.labels is None else Holdout(subjects.labels, subjects.groups, bins)
    rows = []
    for alteration in alterations:
        altered = [
            alteration(image, slice_id, plan.seed)
            for image, slice_id in zip(subjects.images, subjects.slice_ids, strict=True)
        ]
        after = predict(altered)
        facts = {"kind": alteration.kind, "severity": alteration.severity, "setting": alteration.setting}
        rows.append(facts | _stability(before, after, subjects.groups, plan) | _changes(before, after, holdout, plan))
    reference = {} if holdout is None else {name: metric_interval(name, before, holdout, plan) for name in METRICS}
    return {
        "basis": subjects.basis,
        "explanation": EXPLANATIONS[subjects.basis],
        "images": len(subjects.images),
        "groups": group_index(subjects.groups)[1],
        "reference": reference,
        "alterations": rows,
    }


def _stability(before: Float, after: Float, groups: Groups, plan: Resampling) -> dict[str, Interval]:
    """Share of images whose answer stays, and the mean change of the confidence."""
    moved = after.max(axis=1) - before.max(axis=1)
    answers = Holdout(before.argmax(axis=1), groups)
    return {
        "same_answer": metric_interval("accuracy", after, answers, plan),
        "confidence_change": bootstrap_interval(lambda weights: (weights @ moved) / weights.sum(axis=1), groups, plan),
    }


def _changes(before: Float, after: Float, holdout: Holdout | None, plan: Resampling) -> dict[str, Any]:
    if holdout is None:
        return {"changes": {}}
    return {"changes": {name: difference_interval(name, after, before, holdout, plan) for name in METRICS}}


def draw(count: int, most: int, seed: int) -> Labels:
    """Rows to alter, sorted: all of them, or as many as are allowed, drawn by seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
