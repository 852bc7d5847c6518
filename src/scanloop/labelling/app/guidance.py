"""Annotation guidelines: Markdown without HTML, and labelled training images of each class as examples."""

import logging
from dataclasses import dataclass

from fastapi import APIRouter
from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy import select

from scanloop.errors import ArtifactError
from scanloop.labelling.app.guards import Me, Page
from scanloop.labelling.app.pictures import example
from scanloop.labelling.app.reader_api import Png
from scanloop.labelling.app.service import Service
from scanloop.labelling.schema import Wave
from scanloop.labelling.store import Store

router = APIRouter()
_LOG = logging.getLogger(__name__)
LONGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Guidelines:
    """What stands in the panel: the text, and of each class its number, its name and how many examples it has."""

    html: Markup | None
    classes: tuple[tuple[int, str, int], ...]


def classes_of(store: Store) -> list[str]:
    """Classes that the store asks for, in their order; none before the first wave."""
    with store.reading() as session:
        return list(session.scalar(select(Wave.classes).order_by(Wave.id.desc()).limit(1)) or [])


def guidelines_of(page: Service) -> Guidelines:
    """The guidelines as they stand in their file now; none, with a line in the log, where it cannot be read."""
    classes, examples = classes_of(page.store), page.pictures.examples
    shown = tuple((number, name, len(examples.get(name, []))) for number, name in enumerate(classes))
    file = page.settings.guidelines
    if file is None:
        return Guidelines(None, shown)
    try:
        with file.open(encoding="utf-8") as text:
            markdown = text.read(LONGEST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        _LOG.warning("%s: the guidelines cannot be read (%s)", file, type(error).__name__)
        return Guidelines(None, shown)
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Guidelines(Markup(renderer.render(markdown)), shown)  # noqa: S704  html is off: all of it is escaped


@router.get("/images/examples/{number}/{index}", response_class=Png)
def example_image(_: Me, page: Page, number: int, index: int) -> Png:
    """A labelled training image of a class, both counted from zero."""
    found = example(page.pictures, classes_of(page.store), number, index)
    if found is None:
        raise ArtifactError("there is no such example")
    return Png(page.pictures.png(found))
