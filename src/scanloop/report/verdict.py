"""The top of the page: what was decided and why, the key number with its n and interval, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from scanloop.report.material import Material
from scanloop.report.numbers import confidence, count, counted, euros, number, percent, sentence
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


DECISIONS: Mapping[str, tuple[str, str, str]] = {
    "promoted": ("Promoted", "good", "The model may be used."),
    "refused": ("Not promoted", "bad", "The model is not put to use."),
    "stays champion": ("Below the bounds", "bad", "The model in use no longer meets the bounds."),
}
UNDECIDED = ("Not decided yet", "plain", "Nothing has been decided yet.")


def verdict(material: Material) -> Verdict:
    """Verdict on a run, from whatever it left."""
    promotion = material.json("promotion", "promotion.json")
    decision = "stays champion" if promotion.get("stays_champion") else str(promotion.get("decision"))
    word, tone, opening = DECISIONS.get(decision, UNDECIDED)
    parts = [Markup("<strong>{}</strong>").format(opening)]
    if reason := sentence(promotion.get("reason")):
        parts.append(Markup("{}").format(reason))
    return Verdict(word, tone, Markup(" ").join([*parts, *_measured(material), *_spent(material)]), _tiles(material))


def _measured(material: Material) -> list[Markup]:
    reached = material.deployed.get("macro_f1") or {}
    if reached.get("value") is None:
        return [Markup("No model has been measured.")]
    bounds = f"{confidence(reached)} {number(reached['low'])} to {number(reached['high'])}"
    found = Markup("It reaches a macro-F1 of <strong>{}</strong> ({}) on {}.").format(
        number(reached["value"]), bounds, holdout_words(material.metrics)
    )
    if material.metrics.get("deployed_arm") == "supervised":
        return [found, Markup("It learned from experts' labels alone: no machine label counted.")]
    words = difference_words(material.metrics)
    return [found, Markup("Did the unlabelled images help? {}").format(words)]


def _spent(material: Material) -> list[Markup]:
    ledger = material.json("account", "ledger.json")
    if not ledger:
        return []
    total, cap = ledger.get("total_eur"), ledger.get("cap_eur")
    share = f", {percent(total / cap, 2)} of its cap of {euros(cap)}" if total is not None and cap else ""
    return [Markup("The run cost <strong>{}</strong>{}.").format(euros(total), share)]


def _tiles(material: Material) -> list[tuple[str, str, str]]:
    tiles = []
    metrics, positive = material.metrics, material.positive_class or ""
    measured = [("Macro-F1", material.deployed.get("macro_f1"))]
    measured.append((f"Sensitivity, {positive}", metrics.get("per_class", {}).get(positive, {}).get("recall")))
    for name, entry in measured:
        if entry and entry.get("value") is not None:
            tiles.append((name, number(entry["value"]), f"{number(entry['low'])} to {number(entry['high'])}"))
    if holdout := metrics.get("holdout"):
        kind = "test hold-out" if holdout.get("kind") == "test" else "cross-validated"
        remark = f"{counted(holdout.get('images', 0), 'image')}, {kind}"
        tiles.append(("Independent groups", count(holdout.get("groups")), remark))
    if ledger := material.json("account", "ledger.json"):
        bought = counted(int(ledger.get("labels") or 0), "label")
        tiles.append(("Cost", euros(ledger.get("total_eur")), f"{bought} bought"))
    return tiles
