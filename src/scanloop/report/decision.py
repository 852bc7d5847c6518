"""The page's sections on what was decided: whether the model is promoted, and whether its confidence has drifted."""

from collections.abc import Mapping
from typing import Any

from scanloop.report.blocks import Block, Facts, Mark, Note, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, number, percent, sentence
from scanloop.report.performance import same_rows_words


def promotion(material: Material) -> Section:
    """Whether the model became champion, and each check behind the decision."""
    anchor, title, steps = "promotion", "May the model be used?", ("promote",)
    facts = material.json("promotion", "promotion.json")
    if not facts:
        return Section(anchor, title, steps, "Nothing has been decided yet.", missing="promote")
    answer = "Yes" if facts.get("decision") == "promoted" else "No longer" if facts.get("stays_champion") else "No"
    lead = f"{answer}. {sentence(facts.get('reason'))}"
    rows = [
        (
            sentence(check.get("sentence") or check.get("name")) or DASH,
            _value(check.get("value")),
            _value(check.get("bound")),
            Mark("holds", "good") if check.get("passed") else Mark("does not hold", "bad"),
        )
        for check in facts.get("checks", [])
    ]
    table = Table("The checks behind the decision", ("Check", "Measured#", "Required#", "Result"), rows)
    blocks: list[Block] = [table]
    if remark := same_rows_words(material):
        blocks.append(Note(remark))
    alias = f"Registered as {facts['alias']}." if facts.get("alias") else "Not registered."
    return Section(anchor, title, steps, lead, [*blocks, Note(alias, engineer=True)])


def drift(material: Material) -> Section:
    """Whether the confidence on new images looks like that on the hold-out."""
    anchor, title, steps = "drift", "Do today's images look like those it was measured on?", ("detect_drift",)
    facts = material.json("drift", "drift.json")
    if not facts:
        return Section(anchor, title, steps, "The confidence has not been compared yet.", missing="detect_drift")
    entries = [
        ("Drift", _drifted(facts.get("drifted")), f"method {facts.get('method', DASH)}"),
        ("Score", number(facts.get("score")), f"threshold {number(facts.get('threshold'))}"),
    ]
    if facts.get("chance_score") is not None:
        entries.append(("By chance alone", number(facts["chance_score"]), "reached in one of twenty cases"))
    blocks: list[Block] = [Facts(entries)]
    profiles = [(name, facts.get(key)) for name, key in (("Hold-out (reference)", "reference"), ("Now", "current"))]
    rows = [_profile(name, profile) for name, profile in profiles if isinstance(profile, Mapping)]
    if rows:
        heads = ("Images", "n#", "Mean confidence#", "Median#", "Confident, at least 0.8#", "Called positive#")
        blocks.append(Table("Confidence on the hold-out and now", heads, rows))
    if facts.get("basis"):
        blocks.append(Note(facts["basis"]))
    blocks.append(Note("Evidently's own page is drift/drift.html.", engineer=True))
    return Section(anchor, title, steps, sentence(facts.get("verdict") or facts.get("reason")), blocks)


def _profile(name: str, profile: Mapping[str, Any]) -> tuple[str, ...]:
    prevalence = profile.get("prevalence") or {}
    called = percent(prevalence.get("value"))
    if prevalence.get("low") is not None:
        called += f" ({percent(prevalence['low'])} to {percent(prevalence['high'])})"
    quantiles = profile.get("quantiles") or {}
    return (
        name, count(profile.get("n")), number(profile.get("mean")), number(quantiles.get("0.5")),
        percent(profile.get("confident_share")), called,
    )  # fmt: skip


def _drifted(drifted: bool | None) -> str:
    return "cannot be told" if drifted is None else "yes" if drifted else "no"


def _value(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return number(value) if isinstance(value, float) else str(value)
