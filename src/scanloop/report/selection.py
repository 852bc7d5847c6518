"""The page's section on the labels that are worth buying from experts."""

import base64
import io

import pandas as pd
import PIL.Image

from scanloop.archive.shards import iterate_shards
from scanloop.report.blocks import Block, Facts, Gallery, Section, Thumbnail
from scanloop.report.material import Material
from scanloop.report.numbers import count, counted, euros, number, sentence
from scanloop.types import Image

THUMBNAIL_PX = 240
"""Longest side of an image on the page: twice what is shown, for dense screens."""


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


def thumbnail_uri(image: Image) -> str:
    """Image as a PNG in a data URI, shrunk to the page's size."""
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), PIL.Image.Resampling.BOX)
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
    shown_rows = rows[rows["slice_id"].isin(set(images))].to_dict("records")
    names = _short_names([material.uris.get(row["slice_id"], row["slice_id"]) for row in shown_rows])
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


def _short_names(uris: list[str]) -> list[str]:
    """Last part of each uri, with the folder before it where two would read the same."""
    names = [uri.rstrip("/").rpartition("/")[2] for uri in uris]
    if len(set(names)) == len(names):
        return names
    return ["/".join(uri.rstrip("/").split("/")[-2:]) for uri in uris]
