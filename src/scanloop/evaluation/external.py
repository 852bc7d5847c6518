"""A fixed model on a foreign labelled set: nothing is fitted again, neither threshold nor temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scanloop.errors import ConfigError
from scanloop.evaluation.calibration import honesty
from scanloop.evaluation.comparison import Holdout, class_intervals, metric_intervals
from scanloop.evaluation.curves import mean_confusion
from scanloop.evaluation.gates import interval_from
from scanloop.evaluation.intervals import Resampling, group_index
from scanloop.evaluation.operating_points import Scored, predictive_values, rates
from scanloop.types import Float, Interval


def matched(labels: Sequence[str], names: Mapping[str, str], classes: Sequence[str]) -> list[str]:
    """Labels of a foreign set as classes of the model.

    Args:
        labels: (n,) labels of the set.
        names: Class of the model for each label that is called otherwise there.
        classes: Classes of the model.

    Raises:
        ConfigError: A label is no class of the model, a name is mapped to none, or one is mapped that does not occur.
    """
    if unknown := sorted(set(names.values()) - set(classes)):
        raise ConfigError(f"--class: the model knows no {_listed(unknown)}; its classes are {_listed(classes)}")
    if unused := sorted(set(names) - set(labels)):
        raise ConfigError(f"--class: the set holds no {_listed(unused)}; its labels are {_listed(sorted(set(labels)))}")
    found = [names.get(label, label) for label in labels]
    if foreign := sorted(set(found) - set(classes)):
        raise ConfigError(
            f"the set is labelled {_listed(foreign)}, the model knows {_listed(classes)}: say which is which, for "
            f"example --class {foreign[0]}={classes[0]}, or judge it with another model"
        )
    return found


def external_metrics(
    probabilities: Float, holdout: Holdout, classes: Sequence[str], positive: str, threshold: float, plan: Resampling
) -> dict[str, Any]:
    """What a fixed model reaches.

    Args:
        probabilities: (n, classes), calibrated as the bundle says.
        holdout: Labels, groups and bins.
        classes: Names of the classes, in the order of the probabilities.
        positive: The class that the threshold is for.
        threshold: From this probability on an image counts as positive; only with two classes.
        plan: Resamples, confidence and seed.

    Returns:
        Metrics, calibration, confusion; "at_threshold" is None where there are more than two classes.
    """
    at_threshold = None
    if len(classes) == 2:
        place = list(classes).index(positive)
        called = np.where(probabilities[:, place] >= threshold, place, 1 - place)
        rows = class_intervals(np.eye(2)[called], holdout, plan)
        at_threshold = {
            "threshold": threshold,
            "sensitivity": rows[place]["recall"],
            "specificity": rows[1 - place]["recall"],
            "ppv": rows[place]["precision"],
            "npv": rows[1 - place]["precision"],
        }
    counts = np.bincount(holdout.labels, minlength=len(classes))
    return {
        "images": len(holdout.labels),
        "groups": group_index(holdout.groups)[1],
        "classes": dict(zip(classes, counts.tolist(), strict=True)),
        "metrics": metric_intervals(probabilities, holdout, plan),
        "at_threshold": at_threshold,
        "calibration": honesty(probabilities[None], holdout.labels, holdout.bins, plan.seed),
        "confusion": mean_confusion(probabilities[None], holdout.labels),
    }


def at_points(points: Sequence[Mapping[str, Any]], judged: Scored, confidence: float) -> list[dict[str, Any]]:
    """What thresholds that were chosen elsewhere give on a foreign set, beside what they were said to give.

    Sensitivity and specificity were measured there. Predictive values depend on the share of the positive class; what
    is promised of them follows from both rates there at the share that the foreign set has.

    Args:
        points: `operating_points` of an evaluation's `metrics.json`.
        judged: Images of the foreign set.
        confidence: Coverage of the intervals.
    """
    prevalence = float(judged.positive.mean())
    found = []
    for point in points:
        tpr, fpr, ppv, npv = rates(judged.scores >= point["threshold"], judged, confidence)
        reached = {"sensitivity": tpr, "specificity": _complement(fpr), "ppv": ppv, "npv": npv}
        told_tpr, told_fpr = (interval_from(point[name]) for name in ("tpr", "fpr"))
        told = {"sensitivity": told_tpr, "specificity": _complement(told_fpr)}
        difference = {name: unpaired_difference(reached[name], vars(told[name])) for name in told}
        by_rates = zip(("ppv", "npv"), predictive_values(told_tpr, told_fpr, prevalence), strict=True)
        facts = {name: point[name] for name in ("target", "aimed_at", "threshold", "chosen_on")}
        found.append(facts | reached | {"promised": told | dict(by_rates), "difference": difference})
    return found


def unpaired_difference(one: Interval, other: Mapping[str, Any]) -> dict[str, float] | None:
    """First value minus the second, of different images, with an interval from both intervals; None where undefined.

    MOVER (Zou and Donner 2008, doi:10.1002/sim.3095): the squares of the distances to the nearer bounds add up.
    """
    value, low, high = (other.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None or not np.isfinite(one.value):
        return None
    difference = one.value - value
    down = float(np.hypot(one.value - one.low, high - value))
    up = float(np.hypot(one.high - one.value, value - low))
    return {"value": difference, "low": difference - down, "high": difference + up}


def _complement(share: Interval) -> Interval:
    return replace(share, value=1 - share.value, low=1 - share.high, high=1 - share.low)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
