"""One style for every figure, and figures as SVG that follows the page's ink, paper and font.

Colours are those of Okabe and Ito (2008), told apart with any colour vision; shapes and labels repeat what they say.
matplotlib's object interface alone is used: no global figure state, so figures may be drawn in threads.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Colour and shape of the first, second, ... series."""

INK, PAPER = "#010203", "#fdfefd"
"""Stand-ins that become the page's text and background colours."""

_VARIABLES = {
    INK: "currentColor",
    PAPER: "var(--paper, #fff)",
    BLUE: f"var(--blue, {BLUE})",
    VERMILLION: f"var(--vermillion, {VERMILLION})",
    GREEN: f"var(--green, {GREEN})",
    PURPLE: f"var(--purple, {PURPLE})",
    ORANGE: f"var(--orange, {ORANGE})",
    SKY: f"var(--sky, {SKY})",
}

_STYLE: Any = {
    "svg.hashsalt": "scanloop",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
}


def new_figure(width_inches: float, height_inches: float, columns: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Figure with a row of axes in scanloop's style; `grid` goes to matplotlib's `Figure.subplots`."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False, **grid)[0])
    for ax in axes:
        restyle(ax)
    return figure, axes


def restyle(ax: Axes) -> None:
    """Give axes thin ink, a faint grid and no frame."""
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.spines[["left", "bottom"]].set_alpha(0.45)
    ax.tick_params(colors=INK, length=3, width=0.6, labelsize=8.5)
    ax.grid(color=INK, alpha=0.1, linewidth=0.6)
    ax.set_axisbelow(True)


def label_axes(ax: Axes, title: str, x: str, y: str) -> None:
    """Name what axes show; every word is taken as it stands, never as mathematics."""
    ax.set_title(literal(title), loc="left", fontsize=9.5, fontweight="bold", color=INK)
    ax.set_xlabel(literal(x), color=INK, fontsize=9)
    ax.set_ylabel(literal(y), color=INK, fontsize=9)


def legend(ax: Axes, **place: Any) -> None:
    """Legend without a frame, in the page's ink."""
    ax.legend(frameon=False, labelcolor=INK, fontsize=8.5, handlelength=1.6, **place)


def legend_below(figure: Figure, ax: Axes, **style: Any) -> None:
    """Legend of one of the axes below the whole figure, clear of the data."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", frameon=False, labelcolor=INK, fontsize=8.5, ncols=6, **style
    )


def literal(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")


def to_svg(figure: Figure, name: str) -> str:
    """Figure as an inline SVG element: the same figure and name give the same bytes.

    Args:
        figure: From `new_figure`.
        name: Short word, unique on the page; it begins every id inside, so that two figures never share one.

    Returns:
        `<svg ...>...</svg>` without prologue, metadata or any address; text stays text, in the page's font.
    """
    sink = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(
            sink, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", "var(--font, sans-serif)").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    svg = svg.replace("xlink:href", "href")
    for stand_in, value in _VARIABLES.items():
        svg = svg.replace(stand_in, value)
    return re.sub(r"\n\s*", "\n", svg).strip()
