"""Texts of the page, one file a language."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = ("en", "fr")
_WANTED = re.compile(r"^\s*([a-z]{2})(?:-[a-z0-9]+)*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*$", re.IGNORECASE)


@cache
def texts_in(language: str) -> dict[str, Any]:
    """All texts of a language, by section and name."""
    loaded: dict[str, Any] = yaml.safe_load((Path(__file__).parent / f"{language}.yaml").read_text(encoding="utf-8"))
    return loaded


def language_of(chosen: str | None, accepted: str) -> str:
    """The language that somebody chose, else the one that their browser would rather have, else English.

    >>> language_of(None, "de, fr-CH;q=0.9, en;q=0.8"), language_of("en", "fr"), language_of("xx", "")
    ('fr', 'en', 'en')
    """
    if chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, int, str]] = []
    for part in accepted[:200].split(","):
        found = _WANTED.match(part)
        if found and found[1].lower() in LANGUAGES:
            wanted.append((-float(found[2] or 1), len(wanted), found[1].lower()))
    return min(wanted)[2] if wanted else LANGUAGES[0]
