"""The page's section on the model's errors: the hold-out's images that it gets wrong, the surest first."""

import pandas as pd

from scanloop.report.blocks import Block, Facts, Gallery, Note, Section, Thumbnail
from scanloop.report.material import Material
from scanloop.report.numbers import count, counted, number, percent
from scanloop.report.thumbnails import images_of, short_names, thumbnail_uri

SURE = 0.9
"""Confidence from which an error counts as sure of itself."""

HELD_OUT = ("test", "cross_validation")


def errors(material: Material) -> Section:
    """False positives and false negatives, or all errors where there are more than two classes."""
    anchor, title, steps = "errors", "Where is it wrong?", ("evaluate",)
    if "evaluation" not in material or "catalog" not in material:
        return Section(anchor, title, steps, "The model has not been measured yet.", missing="evaluate")
    rows = judged(material)
    if rows is None:
        return Section(anchor, title, steps, "No image has been predicted yet.", missing="evaluate")
    wrong = rows[rows["label"] != rows["given_label"]].sort_values(["confidence", "slice_id"], ascending=[False, True])
    sure = int((wrong["confidence"] >= SURE).sum())
    share = f"{counted(len(rows), 'image')} ({percent(len(wrong) / max(len(rows), 1))})"
    lead = f"It is wrong on {count(len(wrong))} of {share}; of {count(sure)} of these it is at least {SURE:.0%} sure."
    if not len(wrong):
        lead = f"It is right on every one of {counted(len(rows), 'image')} of the hold-out."
    kinds = _kinds(wrong, rows, material.positive_class)
    entries = [("Errors", count(len(wrong)), f"of {counted(len(rows), 'image')} of the hold-out")]
    entries += [
        (name, count(len(part)), f"{percent(len(part) / of)} of {count(of)} that could be")
        for name, part, of in kinds
        if of
    ]
    entries.append(("Sure and wrong", count(sure), f"confidence from {SURE:.0%}"))
    blocks: list[Block] = [Facts(entries)]
    blocks += [
        _gallery(material, name, part.head(material.errors)) for name, part, _ in kinds if len(part) and material.errors
    ]
    blocks.append(Note(
        "An expert's label can be wrong too: sure errors are the first to read again. Marks that recur here (text, "
        "tubes, borders, one machine) hint at what the model looks at in place of the finding; they prove nothing.",
    ))  # fmt: skip
    if material.metrics.get("holdout", {}).get("kind") == "cross_validation":
        blocks.append(Note("Predictions are means over the repeats of cross-validation.", engineer=True))
    return Section(anchor, title, steps, lead, blocks)


def judged(material: Material) -> pd.DataFrame | None:
    """Rows of `predictions.parquet` that an expert's label judges, one a slice; None where there is no such table."""
    if not (material.artifacts["evaluation"] / "predictions.parquet").exists():
        return None
    table = material.table("evaluation", "predictions.parquet").drop_duplicates("slice_id")
    drawn = set(material.manifest.loc[material.manifest["label"].notna(), "slice_id"])
    return table[table["split"].isin(HELD_OUT) & table["given_label"].notna() & table["slice_id"].isin(drawn)]


def _kinds(wrong: pd.DataFrame, rows: pd.DataFrame, positive: str | None) -> list[tuple[str, pd.DataFrame, int]]:
    """Name, errors and images that could be such an error."""
    classes = {*rows["given_label"], *rows["label"]}
    if positive not in classes or len(classes) > 2:
        return [("Misclassified", wrong, len(rows))]
    negatives = int((rows["given_label"] != positive).sum())
    return [
        (f"Called {positive}, and is not", wrong[wrong["label"] == positive], negatives),
        (f"Missed {positive}", wrong[wrong["given_label"] == positive], len(rows) - negatives),
    ]


def _gallery(material: Material, name: str, rows: pd.DataFrame) -> Gallery:
    images = images_of(material, rows["slice_id"])
    shown = [row for row in rows.to_dict("records") if row["slice_id"] in images]
    names = short_names([material.uris.get(row["slice_id"], row["slice_id"]) for row in shown])
    thumbnails = [
        Thumbnail(
            thumbnail_uri(images[row["slice_id"]]),
            f"Image of {row['given_label']}, called {row['label']}",
            short,
            [f"Expert: {row['given_label']}", f"Model: {row['label']}, {number(row['confidence'], 2)}"],
        )
        for row, short in zip(shown, names, strict=True)
    ]
    return Gallery(f"{name}: the {counted(len(thumbnails), 'surest error')}, as the model sees them.", thumbnails)
