"""The page itself: every section in its order, in one HTML file that asks for nothing from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scanloop.report import (
    accounting,
    cards,
    decision,
    depth,
    errors,
    intake,
    performance,
    pool,
    purity,
    representation,
    selection,
)
from scanloop.report.blocks import Block, Gallery, Pictures, Section
from scanloop.report.material import Material
from scanloop.report.verdict import verdict

FOLDER = Path(__file__).parent

SECTIONS = (
    intake.intake,
    intake.checks,
    representation.encoder,
    representation.triage,
    purity.purity,
    selection.queue,
    pool.pseudo_labels,
    performance.arms,
    performance.performance,
    errors.errors,
    depth.robustness,
    depth.subgroups,
    depth.learning_curve,
    depth.feature_map,
    decision.promotion,
    decision.drift,
    accounting.money,
    cards.cards,
    accounting.provenance,
)
"""Sections in the order of the page, which is that of the loop."""


@dataclass(frozen=True)
class Page:
    """The page of a run.

    Attributes:
        html: The whole document.
        sections: What it is made of.
    """

    html: str
    sections: Sequence[Section]

    @property
    def missing(self) -> list[str]:
        """Steps whose sections have nothing to show yet."""
        return [section.missing for section in self.sections if section.missing]

    @property
    def figures(self) -> int:
        """Figures drawn."""
        return sum(len(block.pictures) for block in self._blocks if isinstance(block, Pictures))

    @property
    def images(self) -> int:
        """Images of the archive shown."""
        return sum(len(block.thumbnails) for block in self._blocks if isinstance(block, Gallery))

    @property
    def _blocks(self) -> list[Block]:
        return [block for section in self.sections for block in section.blocks]


def render(material: Material) -> Page:
    """Page of a run, self-contained: style, figures and images stand inside it, and there is no script.

    Args:
        material: Artifacts of the run, and the heading of the page.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [section(material) for section in SECTIONS]
    style = Markup((FOLDER / "style.css").read_text())  # noqa: S704  our own file
    html = environment.get_template("page.html.j2").render(
        title=material.title, style=style, verdict=verdict(material), sections=sections
    )
    return Page(html, sections)
