"""The page's sections on labels: those worth buying from experts, and those that the machine may give."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
import PIL.Image

from scanloop.archive.shards import iterate_shards
from scanloop.report.blocks import Bar, Bars, Block, Facts, Gallery, Mark, Note, Section, Table, Thumbnail
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, euros, interval, number, percent, signed
from scanloop.types import Image

THUMBNAIL_PX = 144


def queue(material: Material) -> Section:
    """Which images experts should read next, why, and at what price."""
    anchor, title, steps = "queue", "Images worth an expert's time", ("acquire",)
    if "queue" not in material:
        return Section(anchor, title, steps, "No images have been chosen yet.", missing="acquire")
    facts = material.json("queue", "queue.json")
    rows = material.table("queue", "queue.parquet").sort_values("rank", kind="stable")
    price = facts.get("price_eur", float(rows["price"].sum()))
    answered = len(material.table("labels", "labels.parquet")) if "labels" in material else 0
    lead = (
        f"{counted(len(rows), 'image')} would teach the model most: it is unsure of them, and they differ from one another. "
        f"Reading all of them costs {euros(price)} of a budget of {euros(facts.get('budget_eur'))}."
        if len(rows)
        else "No image is queued: the budget buys no label, or the pool is empty."
    )
    entries = [
        ("Queued", count(len(rows)), "in the order in which they should be read"),
        ("Price", euros(price), f"budget {euros(facts.get('budget_eur'))}"),
        ("Labels bought since", count(answered), "they join the training part, never the hold-out"),
    ]
    blocks: list[Block] = [Facts(entries)]
    if len(rows) and "catalog" in material and material.gallery:
        blocks.append(_gallery(material, rows.head(material.gallery)))
    return Section(anchor, title, steps, lead, blocks)


def pseudo_labels(material: Material) -> Section:
    """Which machine labels count, which were refused and why, and the gate that all of them had to pass."""
    anchor, title, steps = "pseudo-labels", "Labels that the machine may give", ("pseudo_label",)
    if "pseudo_labels" not in material:
        return Section(anchor, title, steps, "No pseudo-labels have been proposed yet.", missing="pseudo_label")
    certificate = material.json("pseudo_labels", "certificate.json")
    rows = material.table("pseudo_labels", "pseudo_labels.parquet").drop_duplicates("slice_id")
    promoted = int(certificate.get("promoted", rows["promoted"].eq(True).sum()))
    candidates = int(certificate.get("candidates", len(rows)))
    gate = certificate.get("gate") or {}
    lead = (
        f"{counted(promoted, 'unlabelled image')} of {candidates:,} got a machine's label that counts in training."
        if promoted
        else f"None of {candidates:,} unlabelled images got a machine's label: the model was trained on experts' labels alone."
    )
    reasons = certificate.get("reasons") or rows.loc[~rows["promoted"].eq(True), "reason"].value_counts().to_dict()
    blocks: list[Block] = [_reasons(promoted, candidates, reasons)]
    if gate:
        blocks.append(_gate(gate))
        blocks.append(Note(str(gate.get("reason") or "")))
    if rule := certificate.get("rule"):
        said = ", ".join(f"{name} {_plain(value)}" for name, value in sorted(rule.items()))
        blocks.append(Note(f"Rule of wave {certificate.get('wave', 1)}: {said}.", engineer=True))
    return Section(anchor, title, steps, lead, [block for block in blocks if not isinstance(block, Note) or block.text])


def thumbnail_uri(image: Image) -> str:
    """Image as a PNG in a data URI, shrunk to the page's size."""
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX), PIL.Image.Resampling.BOX)
    sink = io.BytesIO()
    picture.save(sink, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def _gallery(material: Material, rows: pd.DataFrame) -> Gallery:
    manifest = material.manifest[material.manifest["slice_id"].isin(set(rows["slice_id"]))]
    images = {
        slice_id: image
        for _, slice_ids, block in iterate_shards(material.artifacts["catalog"], manifest)
        for slice_id, image in zip(slice_ids, block, strict=True)
    }
    thumbnails = []
    for row in rows.itertuples():
        if row.slice_id not in images:
            continue
        uri = material.uris.get(str(row.slice_id), str(row.slice_id))
        lines = [f"uncertainty {number(row.uncertainty, 2)}, {euros(row.price)}", str(row.reason or "")]
        name = uri.rstrip("/").rpartition("/")[2]
        thumbnails.append(
            Thumbnail(
                thumbnail_uri(images[str(row.slice_id)]),
                f"Queued image {row.rank}: {name}",
                f"{row.rank}. {name}",
                [line for line in lines if line],
            )
        )
    shown = counted(len(thumbnails), "image")
    return Gallery(f"The first {shown} of the queue, as the model sees them, with the reason for each.", thumbnails)


def _reasons(promoted: int, candidates: int, reasons: Mapping[str, int]) -> Bars:
    whole = max(candidates, 1)
    refused = sorted(
        ((str(name), int(total)) for name, total in reasons.items() if name != "promoted"),
        key=lambda pair: (-pair[1], pair[0]),
    )
    bars = [Bar("Promoted", promoted / whole, f"{promoted:,} ({percent(promoted / whole)})", "good")]
    bars += [
        Bar(name.replace("_", " "), total / whole, f"{total:,} ({percent(total / whole)})") for name, total in refused
    ]
    return Bars("What became of the unlabelled images: promoted, or refused for the reason named", bars)


def _gate(gate: Mapping[str, Any]) -> Table:
    passed = gate.get("passed")
    rows: list[tuple[str | Mark, ...]] = [
        ("Macro-F1 with experts' labels alone", interval(gate.get("supervised_macro_f1")), DASH),
        (
            "Macro-F1 with machine labels too",
            interval(gate.get("semi_supervised_macro_f1")),
            f"lower bound at least {number(gate.get('min_f1'), 2)}",
        ),
        (
            "Difference",
            interval(gate.get("difference"), difference=True),
            f"lower bound at least {signed(-gate['margin'], 2)}" if gate.get("margin") is not None else DASH,
        ),
        ("Gate", DASH if passed is None else Mark("passed", "good") if passed else Mark("not passed", "bad"), DASH),
    ]
    return Table(
        "The gate: machine labels count only if the hold-out says that they do no harm",
        ("Measure", "Value (interval)", "Required"),
        rows,
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
