"""Pages from templates: everything is escaped, and every text comes from the language's file."""

import json
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scanloop.labelling.app.texts import LANGUAGES, language_of, texts_in

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(request: Request, template: str, **values: Any) -> str:
    """A page in the language of whoever asks."""
    language = language_of(request.cookies.get("language"), request.headers.get("accept-language", ""))
    texts = texts_in(language)
    title = request.app.state.service.settings.title
    shared = {"t": texts, "language": language, "languages": LANGUAGES, "title": title, "path": request.url.path}
    return _PAGES.get_template(template).render(shared | {"me": None} | values, as_json=_as_json)


def _as_json(value: Any) -> str:
    """JSON for an attribute of an element; the template escapes it."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
