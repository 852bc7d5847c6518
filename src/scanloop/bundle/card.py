"""The model card (Mitchell et al. 2019, arXiv:1810.03993): its use, its training data, its limits."""

from collections.abc import Mapping

from scanloop.bundle.facts import BundleFacts
from scanloop.types import Interval

_CARD = """\
# Model card

## Model details
- Network: {architecture}; encoder {encoder}.
- Input: one image, resized to {input_px} px on its short side, centre cropped, normalised. Colour or grey.
- Output: calibrated probabilities of {classes}; the positive class is `{positive_class}`.
- Calibration: {method}, temperature {temperature:.4g}, fitted on {n} images of {groups} groups.
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
a finding. The training images stay where they were; the bundle holds {references}, to check the engine that runs it:
treat the bundle with the care that the images need.

## Caveats and recommendations
- A probability is calibrated for images like those it was fitted on. Watch the drift report, and calibrate again after
  a shift.
- {smallest}
- An image that shows none of the classes still gets one of them, sometimes with high confidence.
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
        temperature=facts.calibration.temperature,
        n=facts.calibration.n,
        groups=facts.calibration.groups,
        data_digest=facts.data_digest,
        counts=_counts(facts),
        training="".join(f"- {name}: {value}\n" for name, value in sorted(facts.training.items())),
        metrics=_metrics(facts.metrics),
        references="one of them" if len(facts.reference) == 1 else f"{len(facts.reference)} of them",
        smallest=_smallest(facts.metrics),
    )


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
