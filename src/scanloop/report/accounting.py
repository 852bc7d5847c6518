"""The page's sections on money and provenance: what the run cost, and what made each artifact."""

from typing import Any

from scanloop.report.blocks import Bar, Bars, Block, Facts, Note, Section, Table
from scanloop.report.material import RECORD, RUN, Material
from scanloop.report.numbers import DASH, count, counted, duration, euros, number, percent


def money(material: Material) -> Section:
    """What nodes and labels cost, and how much of the cap that is."""
    anchor, title, steps = "money", "What did it cost?", ("account",)
    ledger = material.json("account", "ledger.json")
    if not ledger:
        return Section(anchor, title, steps, "The run has not been accounted for yet.", missing="account")
    total, cap = float(ledger.get("total_eur") or 0), float(ledger.get("cap_eur") or 0)
    share = total / cap if cap else 0.0
    entries = ledger.get("entries", [])
    lead = (
        f"{euros(total)} in all: {euros(total - float(ledger.get('label_eur') or 0))} for {duration(ledger.get('seconds'))} of "
        f"computing and {euros(ledger.get('label_eur'))} for {counted(int(ledger.get('labels') or 0), 'label')}. "
        f"That is {percent(share, 2)} of the cap of {euros(cap)}."
    )
    facts: list[tuple[str, str, str]] = [("Total", euros(total), f"cap {euros(cap)}")]
    if ledger.get("eur_per_1000_slices") is not None:
        facts.append(
            ("Per 1,000 images", euros(ledger["eur_per_1000_slices"]), f"{count(ledger.get('slices'))} images")
        )
    facts.append(
        ("Node", str(ledger.get("node") or DASH), f"{euros((ledger.get('price') or {}).get('eur_per_hour'))} an hour")
    )
    rows = [
        (
            str(entry.get("step") or entry.get("artifact") or DASH),
            duration(entry.get("seconds")),
            euros(entry.get("eur")),
        )
        for entry in entries
    ]
    rows.append(("Labels", DASH, euros(ledger.get("label_eur"))))
    rows.append(("Total", duration(ledger.get("seconds")), euros(total)))
    blocks: list[Block] = [
        Facts(facts),
        Bars("Spent of the cap", [Bar("Spent", min(share, 1.0), percent(share, 2), "bad" if share > 1 else "plain")]),
        Table("Cost by artifact", ("Artifact", "Node time#", "Euros#"), rows),
    ]
    if (ledger.get("price") or {}).get("assumption"):
        blocks.append(Note(f"The price of a node is an assumption: {ledger['price'].get('source', '')}."))
    return Section(anchor, title, steps, lead, blocks)


def provenance(material: Material) -> Section:
    """Key, seed, time and machine of each artifact, and the packages behind them."""
    rows, packages = [], dict[str, str]()
    machines = set()
    for name in material.artifacts:
        record, run = material.json(name, RECORD), material.json(name, RUN)
        packages |= record.get("packages", {})
        if run.get("machine"):
            machines.add(", ".join(f"{key} {value}" for key, value in sorted(run["machine"].items())))
        rows.append((
            name, str(record.get("step") or DASH), str(record.get("key") or DASH)[:12], str(record.get("code") or DASH)[:12],
            _seed(record), duration(run.get("seconds")),
        ))  # fmt: skip
    blocks: list[Block] = [
        Table("What made each artifact", ("Artifact", "Step", "Key", "Code", "Seed#", "Time#"), rows),
        Table("Packages that can change a result", ("Package", "Version"), sorted(packages.items())),
    ]
    facts = [(name, digest[:16], "SHA-256, first 16 digits") for name, digest in _digests(material)]
    if facts:
        blocks.insert(0, Facts(facts))
    blocks.extend(Note(f"Machine: {machine}.", engineer=True) for machine in sorted(machines))
    lead = "Run again with the same data, code and seed, every artifact has the same key and the same bytes."
    return Section("provenance", "How this page can be checked", ("report",), lead, blocks)


def _digests(material: Material) -> list[tuple[str, str]]:
    known = [
        ("Data", material.json("catalog", "catalog.json").get("data_digest")),
        ("Encoder", material.json("encoder", "encoder.json").get("digest")),
        ("Model", material.json("bundle", "bundle.json").get("digest")),
    ]
    return [(name, str(digest)) for name, digest in known if digest]


def _seed(record: dict[str, Any]) -> str:
    seed = (record.get("config") or {}).get("seed")
    return DASH if seed is None else number(seed, 0)
