"""The page's section on what would spoil the learning: near-duplicates of the hold-out, chains, readable origins."""

from collections.abc import Mapping, Sequence
from typing import Any

from scanloop.report.blocks import Block, Facts, Mark, Note, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, interval, number, percent, sentence

SHOWN = 12
"""Images pushed out that are listed by name."""


def purity(material: Material) -> Section:
    """Images that left the pool, how large groups are, and whether an image's origin can be read."""
    anchor, title, steps = "purity", "What could spoil the learning", ("ingest", "triage")
    facts = material.json("triage", "triage.json")
    if "pushed_out" not in facts:
        return Section(anchor, title, steps, "Nothing has been looked for yet.", missing="triage")
    pushed, chained, origins = facts["pushed_out"], facts["largest_group"], facts.get("origins") or []
    readable = [str(reading["name"]) for reading in origins if reading["readable"]]
    lead = (
        f"{counted(pushed['images'], 'unlabelled image')} left the pool: too near to an image that judges or teaches. "
        f"{_origin_words(readable, len(origins))}"
    )
    limit = pushed["threshold"]
    entries = [
        ("Left the pool", count(pushed["images"]), f"of {counted(pushed['pool'], 'unlabelled image')}"),
        ("Labelled with copies", count(pushed.get("labelled_with_copies_in_pool")), "came in unlabelled too"),
        ("Largest group", count(chained["slices"]), f"{percent(chained['share'])} of the archive"),
        ("Near means", f"cosine from {number(limit['cosine'], 3)}", f"{percent(limit['rate'])} false at most"),
    ]  # fmt: skip
    blocks: list[Block] = [Facts(entries)]
    if chained.get("warning"):
        blocks.append(Note(f"Warning: {chained['warning']}."))
    if pushed["images"]:
        blocks.append(_pushed(material))
    blocks.append(_causes(chained))
    if origins:
        blocks.append(_origins(origins))
        blocks += [Note(sentence(str(reading["verdict"]))) for reading in origins if reading["readable"]]
    blocks.append(Note(_remark(limit), engineer=True))
    return Section(anchor, title, steps, lead, blocks)


def _origin_words(readable: Sequence[str], probed: int) -> str:
    if readable:
        return f"An image's {', '.join(readable)} can be read from what the network sees."
    if probed:
        return "Where an image comes from cannot be read from what the network sees."
    return "Nothing is known of where the images come from."


def _pushed(material: Material) -> Table:
    table = material.table("triage", "pushed_out.parquet").sort_values("cosine", ascending=False, kind="stable")

    def name(slice_id: str) -> str:
        return str(material.uris.get(slice_id, slice_id)) if "catalog" in material else slice_id

    rows = [
        (name(str(row.slice_id)), name(str(row.near)), number(float(str(row.cosine)), 4), sentence(str(row.reason)))
        for row in table.head(SHOWN).itertuples()
    ]
    caption = "Images that left the pool: never queued, never learnt from"
    if len(table) > SHOWN:
        caption += f"; the nearest {SHOWN} of {len(table):,}, all are in pushed_out.parquet"
    return Table(caption, ("Image", "Near", "Cosine#", "Why"), rows)


def _causes(chained: Mapping[str, Any]) -> Table:
    rows = [
        ("All causes together (the largest group)", count(chained["slices"])),
        ("One patient", count(chained["patient"]) if chained["patient"] else DASH),
        ("One study", count(chained["study"]) if chained["study"] else DASH),
        ("A chain of near-duplicates", count(chained["near_duplicates"])),
        ("Files with the same bytes (one image)", count(chained["exact_copies"])),
    ]
    return Table("The most images that each cause joins", ("Cause", "Images#"), rows)


def _origins(origins: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            str(reading["name"]),
            ", ".join(f"{value} ({groups:,})" for value, groups in sorted(reading["values"].items())),
            interval(reading["accuracy"]),
            number(reading["chance"], 2),
            interval(reading["association"]) if reading.get("association") else DASH,
            Mark("readable", "bad") if reading["readable"] else Mark("not readable", "good"),
        )
        for reading in origins
    ]
    heads = ("Origin", "Values (groups)", "Balanced accuracy", "Chance, 95 of 100 below#", "V with the label", "Result")
    return Table("Can an image's origin be read from its embedding?", heads, rows)


def _remark(limit: Mapping[str, Any]) -> str:
    known = f"; {limit['found']:,} of {limit['known']:,} known near-duplicates reach it" if limit["known"] else ""
    return (
        f"The cosine is the least that {limit['exceeding']:,} of {limit['pairs']:,} random pairs of different groups "
        f"reach, so that at most {percent(limit['expected'], 2)} of unrelated images (95 % bound "
        f"{percent(limit['expected_high'], 2)}) leave wrongly, against {limit['references']:,} images{known}. Near-"
        "duplicates that change more than that are not found this way. No split is moved by it."
    )
