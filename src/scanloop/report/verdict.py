"""The top of the page: what was decided and why, the key number with its n and interval, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from scanloop.report.decision import sentence
from scanloop.report.material import Material
from scanloop.report.numbers import confidence, count, counted, euros, interval, number, percent
from scanloop.report.performance import difference_words, holdout_words


@dataclass(frozen=True)
class Verdict:
    """What a reader must know who reads nothing else.

    Attributes:
        word: The decision in two or three words.
        tone: "good", "bad" or "plain".
        paragraph: The decision with its reasons, one paragraph.
        tiles: Key figures: (name, value, remark).
    """

    word: str
    tone: str
    paragraph: Markup
    tiles: Sequence[tuple[str, str, str]]


def verdict(material: Material) -> Verdict:
    """Verdict on a run, from whatever it left."""
    promotion = material.json("promotion", "promotion.json")
    decision = promotion.get("decision")
    word, tone = {"promoted": ("Promoted", "good"), "refused": ("Not promoted", "bad")}.get(
        str(decision), ("Not decided yet", "plain")
    )
    opening = {"promoted": "The model may be used.", "refused": "The model is not put to use."}.get(
        str(decision), "Nothing has been decided yet."
    )
    parts = [Markup("<strong>{}</strong>").format(opening), Markup("{}").format(sentence(promotion.get("reason")))]
    return Verdict(
        word,
        tone,
        Markup(" ").join(part for part in (*parts, *_measured(material), *_spent(material)) if part),
        _tiles(material),
    )


def _measured(material: Material) -> list[Markup]:
    reached = material.deployed.get("macro_f1") or {}
    if reached.get("value") is None:
        return [Markup("No model has been measured.")]
    bounds = f"{confidence(reached)} {number(reached['low'])} to {number(reached['high'])}"
    found = Markup("It reaches a macro-F1 of <strong>{}</strong> ({}) on {}.").format(
        number(reached["value"]), bounds, holdout_words(material.metrics)
    )
    if material.metrics.get("deployed_arm") == "supervised":
        return [found, Markup("It learned from experts' labels alone: no machine label passed its checks.")]
    entry = material.metrics.get("difference", {}).get("macro_f1")
    return (
        [found, Markup("Did the unlabelled images help? {}").format(difference_words(material))] if entry else [found]
    )


def _spent(material: Material) -> list[Markup]:
    ledger = material.json("account", "ledger.json")
    if not ledger:
        return []
    total, cap = ledger.get("total_eur"), ledger.get("cap_eur")
    share = f", {percent(total / cap, 2)} of its cap of {euros(cap)}" if total is not None and cap else ""
    return [Markup("The run cost <strong>{}</strong>{}.").format(euros(total), share)]


def _tiles(material: Material) -> list[tuple[str, str, str]]:
    tiles = []
    holdout = material.metrics.get("holdout", {})
    if reached := material.deployed.get("macro_f1"):
        tiles.append(
            ("Macro-F1", number(reached.get("value")), f"{number(reached.get('low'))} to {number(reached.get('high'))}")
        )
    found = material.metrics.get("per_class", {}).get(material.positive_class or "", {}).get("recall")
    if found:
        tiles.append(
            (
                f"Sensitivity, {material.positive_class}",
                number(found.get("value")),
                interval(found).partition("(")[2].rstrip(")"),
            )
        )
    if holdout:
        kind = "test hold-out" if holdout.get("kind") == "test" else "cross-validated"
        tiles.append(
            (
                "Independent groups",
                count(holdout.get("groups")),
                f"{counted(holdout.get('images', 0), 'image')}, {kind}",
            )
        )
    if ledger := material.json("account", "ledger.json"):
        tiles.append(
            ("Cost", euros(ledger.get("total_eur")), f"{counted(int(ledger.get('labels') or 0), 'label')} bought")
        )
    return tiles
