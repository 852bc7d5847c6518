"""What a section of the page is made of; the template draws each kind of block."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from markupsafe import Markup
from matplotlib.figure import Figure

from scanloop.evaluation.drawing import to_svg


@dataclass(frozen=True)
class Table:
    """Rows under a caption.

    Attributes:
        caption: What the rows are.
        columns: Heads; a head that ends in "#" is of numbers, set to the right, without the sign.
        rows: Cells as text, as a `Mark` or as a `Term`.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence["Cell"]]


@dataclass(frozen=True)
class Mark:
    """A word with a tone: "good", "bad" or "plain"; the word says it, the colour repeats it."""

    kind: ClassVar[str] = "mark"
    word: str
    tone: str = "plain"


@dataclass(frozen=True)
class Term:
    """A word with what it means below it."""

    kind: ClassVar[str] = "term"
    word: str
    meaning: str


Cell: TypeAlias = str | Mark | Term


@dataclass(frozen=True)
class Facts:
    """A few figures with their names: (name, value, remark)."""

    kind: ClassVar[str] = "facts"
    entries: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        svg: From `scanloop.evaluation.drawing.to_svg`.
        alt: What it shows, for a reader who cannot see it.
        caption: What it says, for a clinician.
    """

    svg: Markup
    alt: str
    caption: str

    @classmethod
    def drawn(cls, figure: Figure, name: str, alt: str, caption: str) -> "Picture":
        """Picture of a figure; `name` is unique on the page."""
        return cls(Markup(to_svg(figure, name)), alt, caption)  # noqa: S704  drawn by us, its text is escaped


@dataclass(frozen=True)
class Pictures:
    """Figures in rows of one or two."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    columns: int = 1


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its length as a share in 0..1, and the figure beside it."""

    name: str
    share: float
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Bars:
    """Bars under a caption."""

    kind: ClassVar[str] = "bars"
    caption: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Thumbnail:
    """An image of the archive: a data URI, what it shows, and lines below it."""

    source: str
    alt: str
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Images of the archive under a caption."""

    kind: ClassVar[str] = "gallery"
    caption: str
    thumbnails: Sequence[Thumbnail]


@dataclass(frozen=True)
class Note:
    """A remark; `engineer` marks what a clinician may skip."""

    kind: ClassVar[str] = "note"
    text: str
    engineer: bool = False


@dataclass(frozen=True)
class Downloads:
    """Text files that the page holds whole: (name, text, remark)."""

    kind: ClassVar[str] = "downloads"
    files: Sequence[tuple[str, str, str]]

    def entries(self) -> list[tuple[str, str, str]]:
        """Name, data URI and remark of each file."""
        head = "data:text/markdown;charset=utf-8;base64,"
        return [(name, head + base64.b64encode(text.encode()).decode(), remark) for name, text, remark in self.files]


Block: TypeAlias = Table | Facts | Pictures | Bars | Gallery | Note | Downloads


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its id on the page.
        title: Heading, in a clinician's words.
        steps: Steps that write what it shows, for an engineer.
        lead: What it says, in one or two sentences.
        blocks: What it shows; empty where the steps have not run.
        missing: Step to run, where there is nothing to show yet.
    """

    anchor: str
    title: str
    steps: Sequence[str]
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    missing: str = ""
