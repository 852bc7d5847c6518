"""The model card (Mitchell et al. 2019, arXiv:1810.03993): its use, its training data, its limits."""

import math
from collections.abc import Mapping
from typing import Any

from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.types import Interval

_CARD = """\
# Model card

## Model details
- Network: {architecture}; encoder {encoder}.
- Input: one image, resized to {input_px} px on its short side, centre cropped, normalised. Colour or grey.
- Output: calibrated probabilities of {classes}; the positive class is `{positive_class}`.
- Calibration: {method}, fitted on {n} images of {groups} groups.{before_after}
- Sets of classes: {sets}
- Labels: {points}
- Abstention: {abstention}
- Training data: digest `{data_digest}`.

## Intended use
Sorting slices of the archive on which it was trained: proposing labels, ordering images for a reader, watching drift.
Its users are the engineers and readers of that archive.

**Not a medical device.** It has not been validated for diagnosis, triage of patients or any other clinical decision,
and must not be used for one.

## Factors
Performance can differ between scanners, sites, protocols and patient groups. Unless a table below names such a factor,
it was not measured.

## Training data
{counts}
{training}
## Quantitative analysis
Out of fold: each image was predicted by models that saw neither it nor any image of its group (the same patient, copies
and near-copies). Intervals resample groups, not images.

{metrics}
## Ethical considerations
Labels come from few readers and carry their mistakes; a network can also learn marks of a scanner or a site in place of
a finding. The training images stay where they were; the bundle holds {references}, to check the engine that runs it,
and ids and embeddings of labelled and familiar ones: treat the bundle with the care that the images need.

## Caveats and recommendations
- A probability is calibrated for images like those it was fitted on. Watch the drift report, and calibrate again after
  a shift.
- {smallest}
- An image that shows none of the classes still has probabilities, sometimes high ones: heed the abstention. It tells
  what is unlike the archive as a whole; a rare finding in an image of the archive's kind may pass for familiar.
"""


def model_card(facts: BundleFacts) -> str:
    """Markdown text of the card; nothing in it depends on a clock or a machine."""
    return _CARD.format(
        architecture=facts.architecture,
        encoder=facts.encoder,
        input_px=facts.preprocess.input_px,
        classes=", ".join(f"`{name}`" for name in facts.classes),
        positive_class=facts.positive_class,
        method=facts.calibration.method,
        before_after=_before_after(facts.calibration),
        sets=_sets(facts),
        points=_points(facts),
        abstention=_abstention(facts),
        n=facts.calibration.n,
        groups=facts.calibration.groups,
        data_digest=facts.data_digest,
        counts=_counts(facts),
        training="".join(f"- {name}: {value}\n" for name, value in sorted(facts.training.items())),
        metrics=_metrics(facts.metrics),
        references="one of them" if len(facts.reference) == 1 else f"{len(facts.reference)} of them",
        smallest=_smallest(facts.metrics),
    )


def _before_after(calibration: Calibration) -> str:
    before, after = (calibration.candidates.get(name) for name in ("none", calibration.calibrator.method))
    if not before or not after:
        return ""
    return (
        f" Out of fold the calibration error is {before['ece']:.3f} before and {after['ece']:.3f} after; a perfect "
        f"model has {after['ece_noise']:.3f} by noise alone at that number of images. {_shares(calibration.prior)}"
    )


def _shares(prior: Mapping[str, Any]) -> str:
    def words(shares: Mapping[str, float]) -> str:
        return ", ".join(f"`{name}` {share:.1%}" for name, share in shares.items())

    if not prior:
        return ""
    served = f"Probabilities are for {words(prior['served'])}; the random labels hold {words(prior['labelled'])}."
    if prior.get("pool"):
        served += f" In the pool an estimate that assumes that classes look the same there says {words(prior['pool'])}."
    return served


def _sets(facts: BundleFacts) -> str:
    conformal = facts.conformal
    thresholds = ", ".join(
        f"`{name}` from {threshold:.3g} ({count} images)"
        for name, threshold, count in zip(facts.classes, conformal.thresholds, conformal.n, strict=True)
    )
    aim = f"{1 - conformal.alpha:.0%} of {'each class' if conformal.per_class else 'all images'}"
    return f"made to hold the true class of {aim}. A class is in the set {thresholds}. {conformal.guarantee}"


def _points(facts: BundleFacts) -> str:
    def words(name: str, threshold: float | None) -> str:
        return f"`{name}`: " + (
            "the most probable class" if threshold is None else f"`{facts.positive_class}` from {threshold:.3g}"
        )

    points = facts.points
    listed = "; ".join(words(*point) for point in points.thresholds.items())
    chosen = "" if len(points.thresholds) == 1 else f" Thresholds were chosen out of fold on {points.chosen_n} images."
    return f"{listed}. `{points.default}` is the default.{chosen}"


def _abstention(facts: BundleFacts) -> str:
    rule = facts.abstention
    if not math.isfinite(rule.threshold):
        strange = "no image is called out of distribution, for want of images to calibrate that."
    else:
        strange = (
            f"an image is out of distribution where it is unlike the archive's images, at most "
            f"{rule.strange_share:.0%} of further ones of their kind. {rule.guarantee}"
        )
    unsure = "the set of classes holds another class than the most probable one"
    if rule.least_confidence is not None:
        unsure = f"the most probable class has less than {rule.least_confidence:.3g}"
    return f"{strange} Confidence is low where {unsure}."


def _counts(facts: BundleFacts) -> str:
    lines = ["| images | " + " | ".join(facts.classes) + " | all |", "|---|" + "---|" * (len(facts.classes) + 1)]
    for kind, counts in facts.counts.items():
        cells = [str(counts.get(name, 0)) for name in facts.classes]
        lines.append(f"| {kind.replace('_', ' ')} | " + " | ".join(cells) + f" | {sum(counts.values())} |")
    return "\n".join(lines) + "\n"


def _metrics(metrics: Mapping[str, Interval]) -> str:
    if not metrics:
        return "No metric was computed when this bundle was written: assume nothing of its performance.\n"
    lines = ["| metric | value | interval | images | groups |", "|---|---|---|---|---|"]
    for name, interval in metrics.items():
        bounds = f"{interval.low:.3f} to {interval.high:.3f} ({interval.confidence:.0%}, {interval.method})"
        lines.append(f"| {name} | {interval.value:.3f} | {bounds} | {interval.n} | {interval.groups} |")
    return "\n".join(lines) + "\n"


def _smallest(metrics: Mapping[str, Interval]) -> str:
    if not metrics:
        return "Measure it before use."
    groups = min(interval.groups for interval in metrics.values())
    return f"The figures rest on {groups} independent groups; decide on the bounds of the intervals, not on the values."
