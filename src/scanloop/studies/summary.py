"""From cells to a table: mean, interval and n of each arm, and its paired difference to the baseline."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scanloop.artifacts import write_bytes, write_json
from scanloop.evaluation.drawing import MARKERS, SERIES, label_axes, legend_below, new_figure
from scanloop.studies.study import Study

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean over seeds with its interval by Student's t; the bounds are None where n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        dataset: Set.
        percent: Labels, in percent.
        labels: Labels, mean over seeds.
        arm: Way.
        metric: Figure.
        value: Over the seeds; NaN figures are left out.
        gain: Paired difference to the baseline over the seeds that both have; None for the baseline itself.
    """

    dataset: str
    percent: float
    labels: float
    arm: str
    metric: str
    value: Mean
    gain: Mean | None


def mean_of(values: Sequence[float]) -> Mean:
    """Mean of finite values, at least one."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Mean(mean, None, None, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Mean(mean, mean - half, mean + half, n)


def summarise(results: list[dict[str, Any]], study: Study) -> list[Line]:
    """Lines of the table, in the order of the results."""
    groups: dict[tuple[str, float, str], dict[int, dict[str, float]]] = {}
    for one in results:
        cell = one["cell"]
        groups.setdefault((cell["dataset"], cell["percent"], cell["arm"]), {})[cell["seed"]] = one["figures"]
    lines = []
    for (dataset, percent, arm), seeds in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1])):
        base = groups.get((dataset, percent, study.baseline), {}) if arm != study.baseline else {}
        labels = float(np.mean([figures.get("labels", np.nan) for figures in seeds.values()]))
        for metric in study.metrics:
            values = {seed: figures[metric] for seed, figures in seeds.items() if figures[metric] is not None}
            others = {seed: figures[metric] for seed, figures in base.items() if figures[metric] is not None}
            both = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
            if values:
                gain = mean_of(both) if both else None
                lines.append(Line(dataset, percent, labels, arm, metric, mean_of(list(values.values())), gain))
    return lines


def markdown(lines: list[Line], study: Study) -> str:
    """The table: a row for each set, share of labels and arm; values in points (hundredths)."""
    header = [
        "set",
        "labels",
        "arm",
        "n",
        *study.metrics,
        *(f"{metric} - {study.baseline}" for metric in study.metrics),
    ]
    rows: dict[tuple[str, float, str], list[Line]] = {}
    for line in lines:
        rows.setdefault((line.dataset, line.percent, line.arm), []).append(line)
    text = [f"# {study.question}", "", _row(header), _row(["---"] * len(header))]
    for (dataset, percent, arm), metrics in rows.items():
        share = f"{percent:g} % ({metrics[0].labels:g})" if np.isfinite(metrics[0].labels) else f"{percent:g} %"
        by_name = {line.metric: line for line in metrics}
        cells = [_points(by_name[name].value) if name in by_name else "" for name in study.metrics]
        gains = [by_name[name].gain if name in by_name else None for name in study.metrics]
        told = ["" if gain is None else _points(gain, "+") for gain in gains]
        text.append(_row([dataset, share, arm, str(metrics[0].value.n), *cells, *told]))
    return "\n".join([*text, "", "Points; 95 % intervals by Student's t over n seeds.", ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _points(mean: Mean, sign: str = "") -> str:
    value = f"{100 * mean.mean:{sign}.1f}"
    return (
        value
        if mean.low is None or mean.high is None
        else f"{value} [{100 * mean.low:{sign}.1f}, {100 * mean.high:{sign}.1f}]"
    )


def figure(lines: list[Line], study: Study) -> bytes:
    """PNG: the first two metrics over the share of labels, a panel for each set and metric, a line for each arm."""
    datasets = sorted({line.dataset for line in lines})
    metrics = study.metrics[:2]
    arms = list(dict.fromkeys(line.arm for line in lines))
    drawn, axes = new_figure(4.2 * len(datasets) * len(metrics), 3.4, columns=len(datasets) * len(metrics))
    panels = [(dataset, metric) for dataset in datasets for metric in metrics]
    for ax, (dataset, metric) in zip(axes, panels, strict=True):
        for number, arm in enumerate(arms):
            found = [one for one in lines if (one.dataset, one.metric, one.arm) == (dataset, metric, arm)]
            means = np.array([one.value.mean for one in found])
            low = np.array([one.value.mean if one.value.low is None else one.value.low for one in found])
            style: Any = {"color": SERIES[number % 6], "marker": MARKERS[number % 6]}
            x = [one.percent * 1.05**number for one in found]  # side by side, not over one another
            ax.errorbar(x, means, yerr=means - low, label=arm, capsize=2, markersize=4, linewidth=1.2, **style)
        percents = sorted({line.percent for line in lines})
        ax.set_xscale("log")
        ax.set_xticks(percents, [f"{percent:g}" for percent in percents])
        ax.minorticks_off()
        label_axes(ax, dataset, "labels, percent", metric)
    legend_below(drawn, axes[0])
    sink = io.BytesIO()
    drawn.savefig(sink, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return sink.getvalue()


def write_summary(folder: Path, results: list[dict[str, Any]], study: Study) -> str:
    """Write `summary.json`, `summary.md` and `summary.png`; the table's text comes back."""
    lines = summarise(results, study)
    text = markdown(lines, study)
    write_json(folder / "summary.json", {"question": study.question, "lines": [asdict(line) for line in lines]})
    write_bytes(folder / "summary.md", text.encode())
    write_bytes(folder / "summary.png", figure(lines, study))
    return text
