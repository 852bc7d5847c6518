"""The page's table of operating points: thresholds that were chosen beforehand, and what they give."""

from collections.abc import Mapping, Sequence
from typing import Any

from scanloop.report.blocks import Block, Cell, Note, Table, Term
from scanloop.report.material import Material
from scanloop.report.numbers import count, interval, number, percent

_CHOSEN = {"validation": "the validation part", "out_of_fold": "out-of-fold predictions"}


def blocks(material: Material) -> list[Block]:
    """The table, and where its thresholds come from; nothing where no threshold was chosen."""
    points: Sequence[Mapping[str, Any]] = material.metrics.get("operating_points") or []
    if not points:
        return []
    rows: list[tuple[Cell, ...]] = []
    for point in points:
        aim = (
            f"TPR at least {point['aimed_at']:g}" if point["target"] == "tpr" else f"FPR at most {point['aimed_at']:g}"
        )
        rates = [(name, f"n = {count(point[name].get('n'))}") for name in ("tpr", "fpr", "ppv", "npv")]
        rows.append((aim, number(point["threshold"]), *(Term(interval(point[name]), of) for name, of in rates)))
    heads = ("Chosen for", "Threshold#", "TPR#", "FPR#", "PPV#", "NPV#")
    first = points[0]
    origin = f"{_CHOSEN[first['chosen_on']]} (n = {count(first['chosen_n'])})"
    said = f"Thresholds come from {origin}, rates from the hold-out, "
    said += f"where the positive class has a share of {percent(first['prevalence'])}."
    for point in points:
        if elsewhere := point.get("elsewhere"):
            said += (
                f" At threshold {number(point['threshold'])} and a share of {percent(elsewhere['prevalence'])}: PPV "
                f"{interval(elsewhere['ppv'])}, NPV {interval(elsewhere['npv'])}."
            )
    return [Table("Operating points", heads, rows), Note(said)]


def of_the_drawn_class(material: Material, drawn: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Points that may be marked on the curves: those are of one class, so nothing is marked where several are drawn."""
    return (material.metrics.get("operating_points") or []) if len(drawn) == 1 else []
