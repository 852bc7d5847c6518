"""Figures of what happens before a model is measured: the encoder's loss, the map of the embeddings, the clusters."""

from collections.abc import Mapping

import numpy as np
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
    literal,
    new_figure,
)
from scanloop.types import Float

MOST_POINTS = 3000
"""Points of a map; an SVG with millions would not open."""


def loss_figure(loss: pd.DataFrame) -> Figure:
    """Training loss of each epoch, and of each optimiser step where it was kept.

    Args:
        loss: Columns epoch and loss, and maybe step.
    """
    figure, (ax,) = new_figure(8.4, 2.8)
    columns = ["step", "loss"] if "step" in loss else ["loss"]
    mean = loss.groupby("epoch", sort=True)[columns].mean()
    if "step" in loss:
        ax.plot(loss["step"], loss["loss"], color=BLUE, alpha=0.4, linewidth=0.9, label="Each step")
    ax.plot(mean["step"] if "step" in loss else mean.index, mean["loss"], "o-", color=BLUE, linewidth=1.8, markersize=4)
    unit = "Optimiser step" if "step" in loss else "Epoch: once through the images"
    label_axes(ax, f"Encoder training, {len(mean)} epochs", unit, "NT-Xent loss (nats)")
    return figure


def silhouette_figure(silhouette: Mapping[int, float], chosen: int | None) -> Figure:
    """Mean silhouette on squared distances of each number of clusters tried, the chosen one marked."""
    figure, (ax,) = new_figure(8.4, 2.4)
    ks = sorted(silhouette)
    ax.plot(ks, [silhouette[k] for k in ks], "o-", color=BLUE, linewidth=1.6, markersize=4.5)
    if chosen is not None and chosen in silhouette:
        ax.plot(chosen, silhouette[chosen], "o", color=VERMILLION, markersize=9, label=f"Chosen: k = {chosen}")
        legend(ax)
    ax.set_xticks(ks)
    ax.margins(y=0.2)
    label_axes(ax, "How distinct the clusters are", "Clusters k", "Mean silhouette, squared distances (-1 to 1)")
    return figure


def triage_figure(points: pd.DataFrame) -> Figure:
    """Map of the embeddings on their first two principal components, by cluster and by known label.

    Args:
        points: Columns x, y, cluster (int) and label (text, None where nobody has said); at most `MOST_POINTS` rows are
            worth drawing, see `thin`.
    """
    figure, (by_cluster, by_label) = new_figure(8.4, 4.2, 2, sharex=True, sharey=True)
    for order, cluster in enumerate(sorted(points["cluster"].unique())):
        _scatter(by_cluster, points[points["cluster"] == cluster], order, f"Cluster {cluster}", size=14, alpha=0.75)
    known = points["label"].notna()
    x, y = _coordinates(points[~known])
    by_label.scatter(x, y, s=7, color=INK, alpha=0.18, linewidths=0, label=f"Unlabelled ({(~known).sum():,})")
    for order, label in enumerate(sorted(points.loc[known, "label"].unique())):
        rows = points[points["label"] == label]
        _scatter(by_label, rows, order, f"{label} ({len(rows):,})", size=24, alpha=0.95)
    label_axes(by_cluster, "By cluster", "First principal component", "Second principal component")
    label_axes(by_label, "By known label", "First principal component", "")
    for ax in (by_cluster, by_label):
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        legend(
            ax,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.07),
            ncols=3,
            columnspacing=1.0,
            handletextpad=0.1,
            markerscale=1.2,
        )
    return figure


def thin(points: pd.DataFrame, most: int = MOST_POINTS, seed: int = 0) -> pd.DataFrame:
    """Rows to draw: every labelled one if there is room, and a random share of the others, in their order."""
    if len(points) <= most:
        return points
    generator = np.random.default_rng(seed)
    known = np.flatnonzero(points["label"].notna().to_numpy())
    others = np.flatnonzero(points["label"].isna().to_numpy())
    known = generator.choice(known, min(len(known), most // 2), replace=False)
    others = generator.choice(others, min(len(others), most - len(known)), replace=False)
    return points.iloc[np.sort(np.concatenate([known, others]))]


def _scatter(ax: Axes, rows: pd.DataFrame, order: int, label: str, size: float, alpha: float) -> None:
    x, y = _coordinates(rows)
    colour, marker = SERIES[order % len(SERIES)], MARKERS[order % len(MARKERS)]
    ax.scatter(
        x, y, s=size, color=colour, marker=marker, alpha=alpha, edgecolors=PAPER, linewidths=0.3, label=literal(label)
    )


def _coordinates(rows: pd.DataFrame) -> tuple[Float, Float]:
    return rows["x"].to_numpy(dtype=float), rows["y"].to_numpy(dtype=float)
