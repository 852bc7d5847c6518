"""Texts: the same in every language, all of them used, and the language that somebody asked for."""

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from label_pages import Site

from scanloop.labelling.app.reader_api import NothingToRead
from scanloop.labelling.app.reasons import reason_of
from scanloop.labelling.app.refusals import CODES
from scanloop.labelling.app.texts import LANGUAGES, language_of, texts_in
from scanloop.labelling.label_errors import REASON

KINDS = ("chance", "recheck", "unsure", "spread", "other")
APP = Path(__file__).parents[1] / "src" / "scanloop" / "labelling" / "app"


def flat(texts: dict[str, Any]) -> dict[str, str]:
    return {f"{section}.{name}": text for section, names in texts.items() for name, text in names.items()}


def test_every_language_has_the_same_texts_with_the_same_names_to_fill_in() -> None:
    english = flat(texts_in("en"))
    assert len(english) > 100
    for language in LANGUAGES:
        texts = flat(texts_in(language))
        assert list(texts) == list(english), language
        for key, text in texts.items():
            assert text.strip(), f"{language}: {key} is empty"
            assert {*re.findall(r"{\w+}", text)} == {*re.findall(r"{\w+}", english[key])}, f"{language}: {key}"


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    pages = "\n".join(path.read_text() for path in (APP / "templates").glob("*.html"))
    scripts = "\n".join(path.read_text() for path in (APP / "static").glob("*.js"))
    used = {f"{section}.{name}" for section, name in re.findall(r"\bt\.(\w+)\.(\w+)", pages)} - {"refused.get"}
    used |= {f"{section}.{name}" for section, name in re.findall(r'say\("(\w+)",\s*"(\w+)"', scripts)}
    used |= {
        f"curate.{name}" for names in re.findall(r"words\(([^)]*)\)", scripts) for name in re.findall(r'"(\w+)"', names)
    }
    used |= {f"bar.{language}" for language in LANGUAGES}
    used |= {f"help.{name}" for name in re.findall(r'\), "(\w+)"\)', pages)}
    used |= {f"nothing.{why}" for why in get_args(get_type_hints(NothingToRead)["why"])}
    used |= {f"reasons.{kind}" for kind in KINDS}
    chosen = {"answers.word_on", "answers.word_before", "answers.word_hidden", "status.nothing_to_undo",
              "status.decided_already", "curate.go_on", "curate.stop", "curate.open", "curate.closed", "curate.raised",
              "curate.closed_now"}  # fmt: skip
    for name in (one.partition(".")[2] for one in chosen):
        assert f'"{name}"' in scripts, name
    there = {key for key in flat(texts_in("en")) if not key.startswith("refused.")}
    assert used | chosen == there | {"refused.heading", "refused.back", "refused.refused"}


def test_every_refusal_has_a_text() -> None:
    code = "\n".join(path.read_text() for path in APP.glob("*.py"))
    kinds = {*re.findall(r'Refused\(\d+, "(\w+)"', code), *(kind for _, _, kind in CODES)}
    assert {"login", "csrf", "origin", "proxy", "too_often", "lease", "role"} <= kinds
    kinds |= {"image", "malformed", "http"}
    assert kinds | {"heading", "back"} == {*texts_in("en")["refused"]}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, by WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_dark_and_their_contrast_is_that_of_wcag_aa() -> None:
    colours = dict(re.findall(r"--(\w+): (#\w{6})", (APP / "static" / "page.css").read_text()))
    for ground in ("ground", "raised"):
        dark = luminance(colours[ground])
        assert dark < 0.02, "nothing glares in a dark room"
        for name, least in dict.fromkeys(("text", "faint", "accent", "good", "warn", "bad"), 4.5).items() | {
            ("edge", 3)
        }:
            assert (luminance(colours[name]) + 0.05) / (dark + 0.05) >= least, (name, ground)


@pytest.mark.parametrize(("header", "language"), [
    ("", "en"), ("fr", "fr"), ("fr-CA,en;q=0.5", "fr"), ("en;q=0.2,fr;q=0.9", "fr"), ("de,it", "en"), ("*", "en"),
    ("fr;q=zz", "en"), (",,,;q=", "en"), ("FR-fr", "fr"), ("de;q=1, en;q=0.3, fr;q=0.3", "en"),
])  # fmt: skip
def test_the_page_speaks_the_language_that_the_browser_would_rather_have(header: str, language: str) -> None:
    assert language_of(None, header) == language


def test_the_switch_wins_over_the_browser(site: Site) -> None:
    browser = site.browser()
    assert '<html lang="en">' in browser.get("/login").text
    answer = browser.post("/language", data={"language": "fr", "back": "/login"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "Mot de passe" in browser.get("/login", headers={"Accept-Language": "en"}).text
    evil = browser.post("/language", data={"language": "xx", "back": "//evil.test"})
    assert evil.headers["location"] == "/"
    assert "language" not in evil.cookies


def test_reasons_become_kinds_that_the_page_has_words_for() -> None:
    drawn = reason_of("drawn at random, to audit what the machine says of the pool")
    assert (drawn.kind, drawn.percent) == ("chance", None)
    unsure = reason_of("uncertainty 0.87 of 1, distance 0.12 to the nearest image wanted more or labelled")
    assert (unsure.kind, unsure.percent) == ("unsure", 87)
    assert reason_of("drawn at random, to see what choosing gains").kind == "chance"
    assert reason_of("uncertainty 0.12 of 1, distance 0.12 to the nearest image").kind == "spread"
    assert reason_of(REASON).kind == "recheck"
    assert reason_of("because").kind == "other"
