"""The page's section on what the unlabelled images teach: labels that the machine may give, with their certificate."""

from collections.abc import Mapping
from typing import Any

from scanloop.report.blocks import Bar, Bars, Block, Cell, Facts, Mark, Note, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, interval, number, percent, sentence, signed

STATUSES = {
    "certified": ("certified", "good"),
    "refused": ("no certificate", "bad"),
    "uncertified": ("not certified: promoted without proof, for a study", "bad"),
}


def pseudo_labels(material: Material) -> Section:
    """Which machine labels count and by what proof, what the rest teaches, and the gate that all had to pass."""
    anchor, title, steps = "pseudo-labels", "Labels that the machine may give", ("pseudo_label",)
    if "pseudo_labels" not in material:
        return Section(anchor, title, steps, "No pseudo-labels have been proposed yet.", missing="pseudo_label")
    facts = material.json("pseudo_labels", "certificate.json")
    reasons = {str(name): int(total) for name, total in (facts.get("reasons") or {}).items()}
    promoted, passing, soft = (int(facts.get(name) or 0) for name in ("promoted", "candidates", "soft_labelled"))
    pool = max(int(facts.get("pool") or 0), passing, sum(reasons.values()))
    proof, recipe = facts.get("certificate") or {}, facts.get("recipe") or {}
    rule = facts.get("rule") or {}
    word, tone = STATUSES.get(str(proof.get("status")), (DASH, "plain"))
    entries = [
        ("Unlabelled images", count(pool), "the pool"),
        ("Pass the rule", count(passing), _rule_words(rule)),
        ("Promoted", count(promoted), f"wave {facts.get('wave', 1)}, {word}"),
        ("Teach softly", count(soft), f"method: {str(recipe.get('method', DASH)).replace('_', ' ')}"),
    ]
    blocks: list[Block] = [Facts(entries)]
    if taken := facts.get("taken_back"):
        blocks.append(Note(f"Wave {facts['wave']} was taken back on {taken['at']}: {taken['reason'] or 'no reason'}."))
    if proof:
        blocks.append(_certificate(proof, Mark(word, tone)))
        blocks.append(Note(sentence(proof["reason"])))
    blocks.append(_reasons(promoted, pool, reasons))
    if choice := facts.get("choice"):
        blocks.append(Note(f"Method for the rest of the pool: {sentence(choice['reason'])}"))
    if gate := facts.get("gate"):
        blocks.append(_gate(gate))
        if gate.get("reason"):
            blocks.append(Note(sentence(gate["reason"])))
    plain = [f"{name} {_plain(value)}" for name, value in sorted(rule.items()) if not isinstance(value, Mapping | list)]
    if plain:
        digests = f" Head {facts.get('head', {}).get('digest', DASH)}, data {facts.get('data_digest', DASH)}."
        blocks.append(Note(f"Rule of wave {facts.get('wave', 1)}: {', '.join(plain)}.{digests}", engineer=True))
    return Section(anchor, title, steps, _lead(promoted, soft, pool), blocks)


def _lead(promoted: int, soft: int, pool: int) -> str:
    images = counted(pool, "unlabelled image")
    if promoted:
        return f"{promoted:,} of {images} got a machine's label that counts in training."
    if soft:
        return f"None of {images} got a label that counts; {soft:,} teach softly, each with a share of doubt."
    return f"None of {images}: the model was trained on experts' labels alone."


def _certificate(proof: Mapping[str, Any], status: Mark) -> Table:
    certificate = proof["certificate"]
    rows: list[tuple[Cell, ...]] = [
        (
            str(claim["scope"]),
            DASH if claim["threshold"] is None else number(claim["threshold"], 2),
            count(claim["audited"]),
            count(claim["errors"]),
            number(claim["precision_low"], 3),
            Mark("proven", "good") if claim["threshold"] is not None else Mark("not proven", "bad"),
        )
        for claim in certificate["claims"]
    ]
    rows.append(("Together", DASH, count(certificate["audited"]), DASH, DASH, status))
    caption = (
        f"The certificate: with a chance of {percent(1 - certificate['delta'])} at least "
        f"{percent(certificate['precision'])} of the promoted labels are right, each patient or group counting once"
    )
    columns = ("Promoted as", "Confidence from #", "Audited #", "Wrong #", "Right at least #", "Proof")
    return Table(caption, columns, rows)


def _rule_words(rule: Mapping[str, Any]) -> str:
    if rule.get("min_confidence") is None:
        return "confident, and the neighbours agree"
    return f"confidence from {rule['min_confidence']:g}, and the neighbours agree"


def _reasons(promoted: int, pool: int, reasons: Mapping[str, int]) -> Bars:
    def bar(name: str, total: int, tone: str = "plain") -> Bar:
        share = total / max(pool, 1)
        return Bar(name, min(share, 1.0), f"{total:,} ({percent(share)})", tone)

    refused = sorted((-total, name) for name, total in reasons.items() if name != "promoted")
    bars = [
        bar("Promoted", promoted, "good"),
        *(bar(sentence(name.replace("_", " ")).rstrip("."), -total) for total, name in refused),
    ]
    return Bars("What became of the unlabelled images: promoted, or refused for the reason named", bars)


def _gate(gate: Mapping[str, Any]) -> Table:
    least = f"lower bound at least {number(gate['min_f1'], 2)}" if gate.get("min_f1") is not None else DASH
    loss = f"lower bound at least {signed(-gate['margin'], 2)}" if gate.get("margin") is not None else DASH
    passed: Cell = DASH
    if gate.get("passed") is not None:
        passed = Mark("passed", "good") if gate["passed"] else Mark("not passed", "bad")
    if gate.get("harmless") and not gate.get("passed"):
        passed = Mark("soft labels only", "plain")
    rows: list[tuple[Cell, ...]] = [
        ("Macro-F1 with experts' labels alone", interval(gate.get("supervised_macro_f1")), DASH),
        ("Macro-F1 with the pool too", interval(gate.get("semi_supervised_macro_f1")), least),
        ("Difference", interval(gate.get("difference"), difference=True), loss),
        ("Gate", passed, "both bounds for promotions, the difference's for soft labels"),
    ]
    caption = "The gate: the pool teaches only if the hold-out says that it does no harm"
    return Table(caption, ("Measure", "Value (interval)", "Required"), rows)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
