"""The page's sections on money and provenance: what the run cost, and what made each artifact."""

from typing import Any

from scanloop.build import RECORD, RUN
from scanloop.provenance import file_digest
from scanloop.report.blocks import Bar, Bars, Block, Facts, Note, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, duration, euros, percent, sentence


def money(material: Material) -> Section:
    """What nodes and labels cost, and how much of the cap that is."""
    anchor, title, steps = "money", "What did it cost?", ("account",)
    ledger = material.json("account", "ledger.json")
    if not ledger:
        return Section(anchor, title, steps, "The run has not been accounted for yet.", missing="account")
    total, cap, bought = (float(ledger.get(name) or 0) for name in ("total_eur", "cap_eur", "label_eur"))
    share = total / cap if cap else 0.0
    labels, seconds = counted(int(ledger.get("labels") or 0), "label"), duration(ledger.get("seconds"))
    lead = (
        f"It cost {euros(total)}: {euros(total - bought)} for {seconds} of computing and {euros(bought)} for {labels}. "
        f"That is {percent(share, 2)} of the cap of {euros(cap)}."
    )
    price = ledger.get("price") or {}
    facts = [("Total", euros(total), f"cap {euros(cap)}")]
    if ledger.get("eur_per_1000_slices") is not None:
        slices = counted(int(ledger.get("slices") or 0), "image")
        facts.append(("Per 1,000 images", euros(ledger["eur_per_1000_slices"]), slices))
    facts.append(("Node", str(ledger.get("node") or DASH), f"{euros(price.get('eur_per_hour'))} an hour"))
    blocks: list[Block] = [Facts(facts), _cap(share), _lines(ledger)]
    if price.get("assumption"):
        blocks.append(Note(f"The node's price is an assumption. {sentence(price.get('source'))}"))
    return Section(anchor, title, steps, lead, blocks)


def provenance(material: Material) -> Section:
    """Key, seed, time and machine of each artifact, and the packages behind them."""
    rows, machines = [], set()
    packages: dict[str, str] = {}
    for name in material.artifacts:
        record, run = material.json(name, RECORD), material.json(name, RUN)
        packages |= record.get("packages") or {}
        if run.get("machine"):
            machines.add(", ".join(f"{key} {value}" for key, value in sorted(run["machine"].items())))
        short = [str(record.get(part) or DASH)[:12] for part in ("key", "code")]
        rows.append((name, str(record.get("step") or DASH), *short, _seed(record), duration(run.get("seconds"))))
    blocks: list[Block] = [
        Table("What made each artifact", ("Artifact", "Step", "Key", "Code", "Seed#", "Time#"), rows)
    ]
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        blocks.append(Note(f"Packages that can change a result: {versions}.", engineer=True))
    if digests := _digests(material):
        blocks.insert(0, Facts([(name, digest[:16], "SHA-256, its first 16 digits") for name, digest in digests]))
    blocks.extend(Note(f"Machine: {machine}.", engineer=True) for machine in sorted(machines))
    lead = "Run again with the same data, code and seed, each artifact has the same key and the same bytes."
    return Section("provenance", "How can this be checked?", ("report",), lead, blocks)


def _cap(share: float) -> Bars:
    return Bars("Spent of the cap", [Bar("Spent", min(share, 1.0), percent(share, 2), "bad" if share > 1 else "plain")])


def _lines(ledger: dict[str, Any]) -> Table:
    rows = [
        (
            str(entry.get("step") or entry.get("artifact") or DASH),
            "an earlier run's" if entry.get("imported") else duration(entry.get("seconds")),
            euros(entry.get("eur")),
        )
        for entry in ledger.get("entries", [])
    ]
    rows.append((f"Experts' labels ({count(ledger.get('labels'))})", DASH, euros(ledger.get("label_eur"))))
    rows.append(("Total", duration(ledger.get("seconds")), euros(ledger.get("total_eur"))))
    return Table("Cost of each artifact", ("Artifact", "Node time#", "Cost#"), rows)


def _digests(material: Material) -> list[tuple[str, str]]:
    seal = material.artifacts["bundle"] / "bundle.json" if "bundle" in material else None
    known = [
        ("Data", material.json("catalog", "catalog.json").get("data_digest")),
        ("Encoder", material.json("encoder", "encoder.json").get("digest")),
        ("Model", file_digest(seal) if seal is not None and seal.exists() else None),
    ]
    return [(name, str(digest)) for name, digest in known if digest]


def _seed(record: dict[str, Any]) -> str:
    seed = (record.get("config") or {}).get("seed")
    return DASH if seed is None else str(seed)
