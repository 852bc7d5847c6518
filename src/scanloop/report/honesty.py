"""The page's blocks on honesty: which calibrators were tried and what each gave, and what the sets of classes hold."""

from collections.abc import Mapping, Sequence

import numpy as np

from scanloop.calibration.calibrator import METHODS
from scanloop.calibration.conformal import Conformal, conformal_from
from scanloop.evaluation.judged import Judged, judged_rows
from scanloop.evaluation.operating_points import Flags, clustered_proportion
from scanloop.report.blocks import Block, Cell, Note, Table, Term
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, confidence, count, counted, interval, number, percent, signed

REFERENCE = "temperature"
"""The method that gains are over."""


def blocks(material: Material) -> list[Block]:
    """The table of calibrators and the line on sets of classes; nothing where the bundle tells of neither."""
    return [*_calibrators(material), *_sets(material)]


def _calibrators(material: Material) -> list[Block]:
    told = material.json("bundle", "calibration.json")
    candidates: Mapping[str, Mapping[str, float]] = told.get("candidates") or {}
    if not candidates:
        return []
    used, gains = told["calibrator"]["method"], told.get("gains", {})
    rows = [_row(name, candidates[name], gains.get(name), used) for name in METHODS if name in candidates]
    caption = (
        f"Calibrators that were tried, out of fold on {counted(told['n'], 'image')} in "
        f"{counted(told['groups'], 'independent group')}"
    )
    heads = ("Method", "ECE#", "ECE by chance alone#", "Log-loss#", f"Log-loss below that of {REFERENCE}#")
    said = (
        f"Calibration: {told['method']}. Each row is of one method alone, not of the choice among them. ± is the "
        "standard error over groups; chosen by itself, a richer map takes a simpler one's place where it gains more."
    )
    return [Table(caption, heads, rows), Note(said, engineer=True)]


def _row(name: str, measured: Mapping[str, float], gain: Mapping[str, float] | None, used: str) -> tuple[Cell, ...]:
    remarks = ["before calibration"] * (name == "none") + ["in use"] * (name == used)
    over = f"{signed(gain['gain'])} ± {number(gain['standard_error'])}" if gain else DASH
    return (
        Term(name, ", ".join(remarks)) if remarks else name,
        number(measured["ece"]),
        Term(number(measured["ece_noise"]), f"one in twenty above {number(measured['ece_noise_high'])}"),
        number(measured["log_loss"]),
        over if name != REFERENCE else "reference",
    )


def _sets(material: Material) -> list[Block]:
    told = material.json("bundle", "conformal.json")
    if not told:
        return []
    classes: Sequence[str] = material.json("bundle", "classes.json")["classes"]
    conformal = conformal_from(told, len(classes))
    if not any(conformal.n):
        return [Note(f"Sets of classes: {conformal.guarantee}", engineer=True)]
    each = ", ".join(
        f"{name} from {number(threshold)} ({counted(images, 'image')})"
        for name, threshold, images in zip(classes, conformal.thresholds, conformal.n, strict=True)
    )
    whom = "of each class" if conformal.per_class else "of all images"
    said = (
        f"Sets of classes are made to hold the true class of {percent(1 - conformal.alpha)} {whom} (alpha "
        f"{conformal.alpha:g}).{_measured(material, conformal, classes)} A class is in the set by its probability: "
        f"{each}."
    )
    return [Note(said), Note(conformal.guarantee, engineer=True)]


def _measured(material: Material, conformal: Conformal, classes: Sequence[str]) -> str:
    """Share of the hold-out's sets that hold the true class, and their mean size; empty without a hold-out."""
    if "evaluation" not in material:
        return ""
    judged = judged_rows(material.table("evaluation", "predictions.parquet"), material.manifest, classes)
    if not judged.count:
        return ""
    inside = conformal.sets(judged.probabilities)
    held = inside[np.arange(len(judged.labels)), judged.labels]
    share = clustered_proportion(held, judged.groups, 0.95)
    by_class = ", ".join(_of_class(name, label, judged, held) for label, name in enumerate(classes))
    found = f"{interval(vars(share))}, {confidence(vars(share))}"
    size = f"{number(inside.sum(axis=1).mean(), 2)} of {len(classes)} classes"
    said = f" On the hold-out they hold it in {found}, {counted(share.n, 'image')}: {by_class}; mean size {size}."
    if material.metrics.get("holdout", {}).get("kind") == "cross_validation":
        said += " The thresholds come from these very images: look for the promise in it, not for a proof."
    return said


def _of_class(name: str, label: int, judged: Judged, held: Flags) -> str:
    of = judged.labels == label
    return f"{name} {number(held[of].mean()) if of.any() else DASH} (n = {count(of.sum())})"
