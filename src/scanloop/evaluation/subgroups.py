"""How a model does on parts of the hold-out: by site, sex, age, view, brightness, size, cluster.

A mean hides who is served worse (Oakden-Rayner et al. 2020, doi:10.1145/3368555.3384468). Many parts are looked at, so
that some differ by chance: the gap of each to the others has an interval that holds for all of them together.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scanloop.evaluation.comparison import Holdout, metric_interval
from scanloop.evaluation.intervals import Resampling, bootstrap_interval, exact_interval, group_index
from scanloop.types import Float, Interval

METRICS = ("accuracy", "macro_f1", "auroc", "ece")
COLUMNS = ("site", "modality")
"""Columns of the manifest that part the images; every attribute of the catalog does so too."""

FEW_VALUES = 8
"""An attribute of numbers with more values is cut into three parts of as many images."""

MOST_RESAMPLES, MOST_DRAWN = 10_000, 200_000_000
"""Resamples of a gap at most, and images that all resamples together may draw beyond those of any other interval."""

NOTE = (
    "Each metric's interval holds for itself alone; of many parts some look worse by chance. The gap to all other "
    "images has an interval that is widened for the number of gaps (Bonferroni): one without zero is a finding, to be "
    "confirmed on other images. A part that is not shown is not thereby served well."
)


def strata(rows: pd.DataFrame, attributes: pd.DataFrame | None, more: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """Part of each row, by the name of what parts them; None where it is unknown.

    Args:
        rows: Hold-out's rows of the manifest.
        attributes: `attributes.parquet`; None where the catalog has none.
        more: Further values by name, text or numbers, by slice_id.
    """
    columns = {name: rows[name] for name in COLUMNS if name in rows}
    for origin, values in more.items():
        columns[origin] = rows["slice_id"].map(values)
    if attributes is not None:
        known = attributes[attributes["slice_id"].isin(set(rows["slice_id"]))]
        for name, part in known.groupby("name"):
            columns.setdefault(
                str(name), rows["slice_id"].map(part.drop_duplicates("slice_id").set_index("slice_id")["value"])
            )
    cut = {name: _parts(column.reset_index(drop=True)) for name, column in columns.items()}
    return {name: parts for name, parts in cut.items() if parts.nunique() > 1}


def _parts(column: pd.Series) -> pd.Series:
    """Values as text; numbers of many values as thirds with their bounds."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.nunique() <= FEW_VALUES or numbers.notna().sum() < column.notna().sum():
        return column.map(lambda value: None if pd.isna(value) else str(value)).astype(object)
    low, high = np.quantile(numbers.dropna(), [1 / 3, 2 / 3])
    names = (f"lowest third, to {low:.4g}", f"middle third, to {high:.4g}", f"top third, above {high:.4g}")
    third = np.where(numbers <= low, 0, np.where(numbers <= high, 1, 2))
    return pd.Series(
        [None if pd.isna(number) else names[part] for number, part in zip(numbers, third, strict=True)], dtype=object
    )


def subgroups(
    probabilities: Float, holdout: Holdout, parts: Mapping[str, pd.Series], plan: Resampling, min_groups: int
) -> dict[str, Any]:
    """Content of `subgroups.json`.

    Args:
        probabilities: (repeats, n, classes) of the deployed arm.
        holdout: Labels and groups of the n images.
        parts: (n,) part of each image by the name of what parts them, from `strata`.
        plan: Resamples, confidence and seed.
        min_groups: Parts of fewer independent groups are counted, not shown.

    Returns:
        By stratum its parts in order of their names: images, groups, metrics, and the gap in accuracy to all others.
    """
    found, comparisons = {}, 0
    for name, column in parts.items():
        values = column.to_numpy(dtype=object)
        members = {value: values == value for value in sorted({value for value in values if value is not None})}
        sizes = {value: group_index(holdout.groups[rows])[1] for value, rows in members.items()}
        shown = {value: rows for value, rows in members.items() if sizes[value] >= min_groups}
        comparisons += len(shown)
        found[name] = (shown, {"parts": len(members) - len(shown), "images": _hidden(members, shown)})
    share = (1 - plan.confidence) / max(comparisons, 1)
    affordable = min(MOST_RESAMPLES, MOST_DRAWN // len(holdout.labels), round(10 / share))
    joint = replace(plan, confidence=1 - share, resamples=max(plan.resamples, affordable))
    return {
        "min_groups": min_groups,
        "comparisons": comparisons,
        "note": NOTE,
        "strata": {
            name: {
                "parts": {value: _part(probabilities, holdout, rows, plan, joint) for value, rows in shown.items()},
                "hidden": hidden,
                "unknown": int(parts[name].isna().sum()),
            }
            for name, (shown, hidden) in found.items()
        },
    }


def _hidden(members: Mapping[str, Any], shown: Mapping[str, Any]) -> int:
    return sum(int(rows.sum()) for value, rows in members.items() if value not in shown)


def _part(probabilities: Float, holdout: Holdout, rows: Any, plan: Resampling, joint: Resampling) -> dict[str, Any]:
    part = Holdout(holdout.labels[rows], holdout.groups[rows], holdout.bins)
    right = (probabilities.argmax(axis=2) == holdout.labels).mean(axis=0)
    return {
        "images": int(rows.sum()),
        "groups": group_index(part.groups)[1],
        "metrics": {name: metric_interval(name, probabilities[:, rows], part, plan) for name in METRICS},
        "accuracy_gap": gap(right, rows, holdout, joint),
    }


def gap(right: Float, rows: Any, holdout: Holdout, plan: Resampling) -> Interval | None:
    """Mean of `right` on some rows minus that on all others; None where there are no others.

    A side on which every image is right, or every one wrong, may hold errors that so few groups missed: the interval is
    widened by the Clopper-Pearson bound of "never" for its groups.
    """
    if rows.all():
        return None
    inside, outside = rows.astype(np.float64), (~rows).astype(np.float64)

    def statistic(weights: Float) -> Float:
        with np.errstate(invalid="ignore", divide="ignore"):
            difference: Float = (weights @ (right * inside)) / (weights @ inside) - (weights @ (right * outside)) / (
                weights @ outside
            )
        return difference

    found = bootstrap_interval(statistic, holdout.groups, plan)
    unseen = 0.0
    for side in (rows, ~rows):
        if right[side].min() == right[side].max():
            groups = group_index(holdout.groups[side])[1]
            unseen = max(unseen, 1 - exact_interval(groups, groups, plan.confidence).low)
    method = "exact" if unseen else found.method
    return replace(found, low=max(-1.0, found.low - unseen), high=min(1.0, found.high + unseen), method=method)
