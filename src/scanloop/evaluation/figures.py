"""Figures of a model's performance, drawn from what `metrics.json` and `curves.json` hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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

METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "auroc": "AUROC",
    "ece": "ECE (lower is better)",
    "brier": "Brier (lower is better)",
}
ARM_NAMES: Mapping[str, str] = {"supervised": "Supervised", "semi_supervised": "Semi-supervised"}
_SQUARE = (4.2, 4.2)


def roc_figure(curves: Mapping[str, Any], area: str, sample: str, points: Sequence[Mapping[str, Any]] = ()) -> Figure:
    """ROC curve of each class, with the operating points marked.

    Args:
        curves: From `scanloop.evaluation.curves.curves`.
        area: AUROC with its interval, as text for the legend.
        sample: What n stands for, for example "n = 80 (40 groups)".
        points: Operating points as `metrics.json` holds them.
    """
    figure, (ax,) = new_figure(*_SQUARE)
    ax.plot([0, 1], [0, 1], color=INK, alpha=0.45, linewidth=0.8, linestyle=(0, (4, 3)), label="Chance")
    for colour, (name, curve) in zip(SERIES * 9, curves["roc"].items(), strict=False):
        ax.plot(curve["fpr"], curve["tpr"], color=colour, linewidth=1.8, label=literal(name))
    _mark(ax, points, "fpr", "tpr")
    _unit_square(ax)
    label_axes(ax, f"ROC, {sample}", "False-positive rate (1 - specificity)", "True-positive rate (sensitivity)")
    legend(ax, loc="lower right")
    ax.annotate(literal(f"AUROC {area}"), (0.96, 0.3), xycoords="axes fraction", ha="right", color=INK, fontsize=8.5)
    return figure


def precision_recall_figure(curves: Mapping[str, Any], sample: str, points: Sequence[Mapping[str, Any]] = ()) -> Figure:
    """Precision-recall curve of each class, beside what guessing reaches, with the operating points marked."""
    figure, (ax,) = new_figure(*_SQUARE)
    for colour, (name, curve) in zip(SERIES * 9, curves["pr"].items(), strict=False):
        label = f"{name}, average precision {curve['average_precision']:.3f}"
        ax.step(curve["recall"], curve["precision"], where="pre", color=colour, linewidth=1.8, label=literal(label))
        ax.axhline(curve["prevalence"], color=colour, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot([], [], color=INK, alpha=0.6, linewidth=0.8, linestyle=(0, (4, 3)), label="Guessing: the class's share")
    _mark(ax, points, "tpr", "ppv")
    _unit_square(ax)
    label_axes(ax, f"Precision-recall, {sample}", "Recall (sensitivity)", "Precision (positive predictive value)")
    legend(ax, loc="lower left")
    return figure


def reliability_figure(curves: Mapping[str, Any], error: str, sample: str) -> Figure:
    """Reliability diagram over a histogram of the confidences.

    Args:
        curves: From `scanloop.evaluation.curves.curves`.
        error: ECE with its interval, as text.
        sample: What n stands for.
    """
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    for ax in (top, bottom):
        restyle(ax)
    data = curves["reliability"]
    edges, counts = np.array(data["edges"]), np.array(data["counts"], dtype=float)
    confidence, accuracy = (np.array(data[name], dtype=float) for name in ("confidence", "accuracy"))
    top.plot([0, 1], [0, 1], color=INK, alpha=0.45, linewidth=0.8, linestyle=(0, (4, 3)), label="Perfectly calibrated")
    top.vlines(confidence, confidence, accuracy, color=VERMILLION, linewidth=1.4, label="Gap")
    sizes = 18 + 110 * counts / max(counts.max(), 1)
    top.scatter(confidence, accuracy, s=sizes, color=BLUE, edgecolors=PAPER, linewidths=0.8, zorder=3, label="Bin")
    first = max(0.0, float(edges[np.flatnonzero(counts)[0]]) - 0.05) if counts.any() else 0.0
    top.set(xlim=(first, 1.02), ylim=(-0.03, 1.05))
    label_axes(top, f"Reliability, {sample}", "", "Share that is right")
    top.annotate(literal(f"ECE {error}"), (0.03, 0.05), xycoords="axes fraction", color=INK, fontsize=8.5)
    bottom.bar(edges[:-1], counts, width=np.diff(edges) * 0.92, align="edge", color=BLUE, alpha=0.75)
    label_axes(bottom, "", "Confidence of the predicted class", "Images")
    legend(top, loc="lower right")
    return figure


def confusion_figure(counts: Sequence[Sequence[float]], classes: Sequence[str], sample: str) -> Figure:
    """Confusion matrix: images and share of each true class; the shade repeats the share."""
    matrix = np.array(counts, dtype=float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    side = max(4.2, 1.0 + 0.8 * len(classes))
    figure, (ax,) = new_figure(side, side)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    for row, column in np.ndindex(*matrix.shape):
        colour = BLUE if row == column else VERMILLION
        shade = 0.05 + 0.5 * float(share[row, column])
        ax.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, alpha=shade, linewidth=0))
        text = f"{matrix[row, column]:.4g}\n{share[row, column]:.0%}"
        ax.text(column, row, text, ha="center", va="center", color=INK, fontsize=9.5)
    ticks = range(len(classes))
    ax.set_xticks(ticks, [literal(name) for name in classes])
    ax.set_yticks(ticks, [literal(name) for name in classes], rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5))
    label_axes(ax, f"Confusion, {sample}", "Predicted by the model", "Given by the experts")
    return figure


def arms_figure(arms: Mapping[str, Any], difference: Mapping[str, Any], sample: str) -> Figure:
    """Both arms' metrics with their intervals, and their paired difference beside them.

    Args:
        arms: Intervals as mappings, by arm and metric.
        difference: Intervals of semi-supervised minus supervised, by metric.
        sample: What n stands for.
    """
    figure, (left, right) = new_figure(8.4, 3.5, 2, sharey=True, width_ratios=[1.35, 1])
    names = [name for name in METRIC_NAMES if name in difference]
    for offset, colour, marker, (arm, title) in zip((-0.14, 0.14), SERIES, MARKERS, ARM_NAMES.items(), strict=False):
        intervals = [arms.get(arm, {}).get(name) for name in names]
        _forest(left, intervals, offset, colour, marker, title)
    _forest(right, [difference[name] for name in names], 0.0, INK, "D", "")
    right.axvline(0, color=INK, alpha=0.6, linewidth=0.9)
    left.set_yticks(range(len(names)), [METRIC_NAMES[name] for name in names])
    left.set_ylim(len(names) - 0.45, -0.75)
    left.set_xlim(0, max(1.02, left.get_xlim()[1]))
    label_axes(left, f"Each arm, {sample}", "Value and interval", "")
    label_axes(right, "Paired difference", "Semi-supervised minus supervised", "")
    limit = max(abs(edge) for edge in right.get_xlim())
    right.set_xlim(-limit, limit)
    legend_below(figure, left)
    return figure


def _forest(ax: Axes, intervals: Sequence[Any], offset: float, colour: str, marker: str, label: str) -> None:
    for row, interval in enumerate(intervals):
        if not interval or interval.get("value") is None:
            continue
        ax.plot(
            [interval["low"], interval["high"]], [row + offset] * 2, color=colour, linewidth=1.8, solid_capstyle="butt"
        )
        ax.plot(interval["value"], row + offset, marker, color=colour, markersize=6, markeredgecolor=PAPER, label=label)
        label = ""
    ax.grid(axis="y", visible=False)


def _mark(ax: Axes, points: Sequence[Mapping[str, Any]], across: str, up: str) -> None:
    for marker, point in zip(MARKERS * 9, points, strict=False):
        if point[across].get("value") is not None and point[up].get("value") is not None:
            label = f"Threshold {point['threshold']:.3f}"
            place = point[across]["value"], point[up]["value"]
            ax.plot(*place, marker, color=INK, markersize=6, markeredgecolor=PAPER, label=label, zorder=4)


def _unit_square(ax: Axes) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), aspect="equal")
