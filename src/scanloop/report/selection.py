"""The page's sections on labels: those worth buying from experts, and those that the machine may give."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scanloop.report.blocks import Bar, Bars, Block, Cell, Facts, Gallery, Mark, Note, Section, Table, Thumbnail
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, euros, interval, number, percent, sentence, signed
from scanloop.report.thumbnails import images_of, short_names, thumbnail_uri


def queue(material: Material) -> Section:
    """Which images experts should read next, why, and at what price."""
    anchor, title, steps = "queue", "Images worth an expert's time", ("acquire",)
    if "queue" not in material:
        return Section(anchor, title, steps, "No images have been chosen yet.", missing="acquire")
    facts = material.json("queue", "queue.json")
    rows = material.table("queue", "queue.parquet").sort_values("rank", kind="stable")
    price, budget = euros(facts.get("price_eur", float(rows["price"].sum()))), euros(facts.get("budget_eur"))
    lead = "No image is queued: the budget buys no label, or the pool is empty."
    if len(rows):
        lead = (
            f"{counted(len(rows), 'image')} would teach the model most: it is unsure of them, and they differ from one "
            f"another. Reading them all costs {price}, of a budget of {budget}."
        )
    bought = len(material.table("labels", "labels.parquet")) if "labels" in material else 0
    entries = [
        ("Queued", count(len(rows)), "in the order of reading"),
        ("Price", price, f"budget {budget}"),
        ("Labels bought", count(bought), "for training, never for the hold-out"),
    ]
    blocks: list[Block] = [Facts(entries)]
    if len(rows) and material.gallery:
        blocks.append(_gallery(material, rows.head(material.gallery)))
    return Section(anchor, title, steps, lead, blocks)


def pseudo_labels(material: Material) -> Section:
    """Which machine labels count, which were refused and why, and the gate that all of them had to pass."""
    anchor, title, steps = "pseudo-labels", "Labels that the machine may give", ("pseudo_label",)
    if "pseudo_labels" not in material:
        return Section(anchor, title, steps, "No pseudo-labels have been proposed yet.", missing="pseudo_label")
    certificate = material.json("pseudo_labels", "certificate.json")
    reasons = {str(name): int(total) for name, total in (certificate.get("reasons") or {}).items()}
    promoted, passing = (int(certificate.get(name) or 0) for name in ("promoted", "candidates"))
    pool = max(int(certificate.get("pool") or 0), passing, sum(reasons.values()))
    lead = f"{promoted:,} of {counted(pool, 'unlabelled image')} got a machine's label that counts in training."
    if not promoted:
        lead = f"None of {counted(pool, 'unlabelled image')}: the model was trained on experts' labels alone."
    rule = certificate.get("rule") or {}
    entries = [
        ("Unlabelled images", count(pool), "the pool"),
        ("Pass the rule", count(passing), _rule_words(rule)),
        ("Promoted", count(promoted), "passed the rule, and the gate was open"),
    ]
    blocks: list[Block] = [Facts(entries), _reasons(promoted, pool, reasons)]
    if gate := certificate.get("gate"):
        blocks.append(_gate(gate))
        if gate.get("reason"):
            blocks.append(Note(sentence(gate["reason"])))
    plain = [f"{name} {_plain(value)}" for name, value in sorted(rule.items()) if not isinstance(value, Mapping | list)]
    if plain:
        blocks.append(Note(f"Rule of wave {certificate.get('wave', 1)}: {', '.join(plain)}.", engineer=True))
    return Section(anchor, title, steps, lead, blocks)


def _gallery(material: Material, rows: pd.DataFrame) -> Gallery:
    images = images_of(material, rows["slice_id"])
    shown_rows = rows[rows["slice_id"].isin(set(images))].to_dict("records")
    names = short_names([material.uris.get(row["slice_id"], row["slice_id"]) for row in shown_rows])
    thumbnails = [
        Thumbnail(
            thumbnail_uri(images[row["slice_id"]]),
            f"Queued image {row['rank']}",
            f"{row['rank']}. {name}",
            [euros(row["price"]), sentence(row["reason"]) or f"Uncertainty {number(row['uncertainty'], 2)}"],
        )
        for row, name in zip(shown_rows, names, strict=True)
    ]
    shown = counted(len(thumbnails), "image")
    return Gallery(f"The first {shown} of the queue, as the model sees them, with price and reason.", thumbnails)


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
    rows: list[tuple[Cell, ...]] = [
        ("Macro-F1 with experts' labels alone", interval(gate.get("supervised_macro_f1")), DASH),
        ("Macro-F1 with machine labels too", interval(gate.get("semi_supervised_macro_f1")), least),
        ("Difference", interval(gate.get("difference"), difference=True), loss),
        ("Gate", passed, "both bounds"),
    ]
    caption = "The gate: machine labels count only if the hold-out says that they do no harm"
    return Table(caption, ("Measure", "Value (interval)", "Required"), rows)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
