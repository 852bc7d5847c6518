"""The page's section on the labels that are worth buying from experts."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scanloop.report.blocks import Block, Facts, Gallery, Section, Thumbnail
from scanloop.report.material import Material
from scanloop.report.numbers import count, counted, euros, number, sentence
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
    forecast = facts.get("forecast") or {}
    if forecast.get("verdict") == "stop":
        lead = "No image is queued: further labels are not worth their price any more."
    if audit := int(facts.get("audit") or 0):
        lead += f" The first {counted(audit, 'image')} were drawn at random instead, to audit the machine's labels."
    if control := int(facts.get("control") or 0):
        lead += f" {counted(control, 'image')} were drawn at random among them, to see what choosing gains."
    bought = len(material.table("labels", "labels.parquet")) if "labels" in material else 0
    entries = [
        ("Queued", count(len(rows)), "in the order of reading"),
        ("Price", price, f"budget {budget}"),
        ("Labels bought", count(bought), "for training, never for the hold-out"),
        *_published(material.json("publication", "publication.json")),
        *_worth(forecast),
        *_gain(facts.get("control_arm")),
    ]
    blocks: list[Block] = [Facts(entries)]
    if len(rows) and material.gallery:
        blocks.append(_gallery(material, rows.head(material.gallery)))
    return Section(anchor, title, steps, lead, blocks)


def _published(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Whether the queue lies before the clinicians."""
    if not facts:
        return []
    if facts["wave"] is None:
        return [("Published", "no", str(facts["why"]))]
    return [("Published", f"wave {facts['wave']}", f"{counted(facts['images'], 'image')} before the clinicians")]


def _worth(forecast: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the next labels bring, as forecast; nothing where labels were too few to tell."""
    if "gain" not in forecast:
        return []
    gain, low, high = (100 * forecast[key] for key in ("gain", "gain_low", "gain_high"))
    about = f"90 % interval {low:+.1f} to {high:+.1f}, from {counted(forecast['labels'], 'label')}; {forecast['why']}"
    return [("Macro-F1 they would add", f"{gain:+.1f} points", about)]


def _gain(arm: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """What choosing gained over drawing at random so far; nothing where controls were too few to tell."""
    if arm is None:
        return []
    gain = arm["macro_f1"]
    low, high = 100 * gain["low"], 100 * gain["high"]
    about = f"95 % interval {low:+.1f} to {high:+.1f}, {counted(arm['labels'], 'label')} against as many at random"
    return [("Gain by choosing", f"{100 * gain['value']:+.1f} points of macro-F1", about)]


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
