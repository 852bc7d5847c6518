"""Figures of what lies behind the metrics: altered images, the gain from labels, the map of features."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scanloop.evaluation.drawing import (
    BLUE,
    INK,
    MARKERS,
    PAPER,
    SERIES,
    VERMILLION,
    label_axes,
    legend,
    legend_below,
    literal,
    new_figure,
    restyle,
)

SEVERITIES = ("mild", "medium", "strong")


def robustness_figure(rows: Sequence[Mapping[str, Any]], measure: str, title: str) -> Figure:
    """One measure of every alteration with its interval, kind by kind; the shade says how strong it is.

    Args:
        rows: "alterations" of `robustness.json`.
        measure: "same_answer", or a name in "changes".
        title: Title of the axis.
    """
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    figure, (ax,) = new_figure(8.4, 0.7 + 0.42 * len(kinds))
    for row in rows:
        entry = row.get(measure) or row["changes"].get(measure) or {}
        if entry.get("value") is None:
            continue
        severity = int(row["severity"])
        place = kinds.index(row["kind"]) + 0.24 * (severity - 2)
        colour, marker = SERIES[severity - 1], MARKERS[severity - 1]
        label = SEVERITIES[severity - 1] if row["kind"] == kinds[0] else ""
        ax.plot([entry["low"], entry["high"]], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(entry["value"], place, marker, color=colour, markersize=5.5, markeredgecolor=PAPER, label=label)
    if measure != "same_answer":
        ax.axvline(0, color=INK, alpha=0.6, linewidth=0.9)
    ax.set_yticks(range(len(kinds)), [literal(kind) for kind in kinds])
    ax.set_ylim(len(kinds) - 0.45, -0.55)
    ax.grid(axis="y", visible=False)
    label_axes(ax, title, "Value and interval", "")
    legend_below(figure, ax)
    return figure


def learning_curve_figure(points: Sequence[Mapping[str, Any]], sample: str) -> Figure:
    """Macro-F1 of the head against the labelled groups, its interval, and the spread of single draws."""
    figure, (ax,) = new_figure(8.4, 3.2)
    groups = [point["groups"] for point in points]
    values = [point["macro_f1"] for point in points]
    ax.fill_between(
        groups, [one["low"] for one in values], [one["high"] for one in values], color=BLUE, alpha=0.15, linewidth=0,
        label="Interval of the mean, by judged groups",
    )  # fmt: skip
    ax.vlines(
        groups, [point["draw_low"] for point in points], [point["draw_high"] for point in points], color=VERMILLION,
        linewidth=1.6, label="Least and best single draw",
    )  # fmt: skip
    ax.plot(groups, [one["value"] for one in values], "o-", color=BLUE, linewidth=1.8, markersize=5, label="Mean")
    ax.set_xlim(left=0)
    label_axes(ax, f"Head on frozen features, {sample}", "Labelled groups that it learns from", "Macro-F1")
    legend(ax, loc="lower right")
    return figure


def map_figure(points: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Images on a plane, one row for each kind of features: by known label, and by prediction with errors ringed.

    Args:
        points: Columns features, x, y, label (text or None), prediction (text) and wrong (bool).
        names: Kinds of features, in order.
    """
    figure = Figure(figsize=(8.4, 0.4 + 3.7 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2, squeeze=False)
    classes = sorted({*points["label"].dropna(), *points["prediction"]})
    for row, name in enumerate(names):
        part = points[points["features"] == name]
        for ax in grid[row]:
            restyle(ax)
            ax.tick_params(length=0, labelbottom=False, labelleft=False)
        unknown = part[part["label"].isna()]
        grid[row][0].scatter(unknown["x"], unknown["y"], s=7, color=INK, alpha=0.18, linewidths=0, label="No label")
        for order, one in enumerate(classes):
            _dots(grid[row][0], part[part["label"] == one], order, one, 20)
            _dots(grid[row][1], part[part["prediction"] == one], order, one, 14)
        wrong = part[part["wrong"]]
        grid[row][1].scatter(
            wrong["x"],
            wrong["y"],
            s=60,
            facecolors="none",
            edgecolors=INK,
            linewidths=1.1,
            label="Error on the hold-out",
        )
        label_axes(grid[row][0], f"{name.capitalize()} features, by known label", "", "")
        label_axes(grid[row][1], f"{name.capitalize()} features, by prediction", "", "")
    for ax in grid[-1]:
        legend(ax, loc="upper left", bbox_to_anchor=(-0.02, -0.02), ncols=3, columnspacing=1.0, handletextpad=0.1)
    return figure


def _dots(ax: Axes, rows: pd.DataFrame, order: int, label: str, size: float) -> None:
    ax.scatter(
        rows["x"], rows["y"], s=size, color=SERIES[order % len(SERIES)], marker=MARKERS[order % len(MARKERS)],
        alpha=0.85, edgecolors=PAPER, linewidths=0.3, label=literal(label),
    )  # fmt: skip
