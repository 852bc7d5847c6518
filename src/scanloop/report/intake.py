"""The page's sections on what came in: images, copies, quarantine, splits, and the checks that they had to pass."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scanloop.report.blocks import Block, Facts, Mark, Note, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, count, counted, percent

SHOWN = 20
"""Quarantined files that are listed by name."""

REASONS: Mapping[str, str] = {
    "empty_file": "The file is empty",
    "not_an_image": "Not an image, whatever its name says",
    "truncated": "The image breaks off",
    "too_small": "Too small to show anything",
    "too_large": "Larger than is safe to open",
    "unreadable": "Cannot be decoded",
    "no_pixels": "A medical object without an image",
    "unsupported": "Encoded in a way that no decoder here knows",
    "other_modality": "Of a modality that is not wanted",
    "burned_in_text": "Text that may name the patient is burned into the image",
    "conflicting_labels": "The same image came with two labels",
}
PARTS: Mapping[str, str] = {
    "labelled": "Training, labelled",
    "pool": "Training, unlabelled (the pool)",
    "validation": "Validation",
    "test": "Test hold-out",
}


def intake(material: Material) -> Section:
    """What came in, what was a copy, what was set aside, and how it is split."""
    anchor, title, steps = "intake", "What came in", ("ingest",)
    if "catalog" not in material:
        return Section(anchor, title, steps, "The archive has not been read yet.", missing="ingest")
    manifest = material.manifest
    sources = material.table("catalog", "sources.parquet")
    quarantine = material.table("catalog", "quarantine.parquet")
    files, labelled = len(sources) + len(quarantine), int(manifest["label"].notna().sum())
    lead = (
        f"{counted(files, 'file')} came in: {counted(len(manifest), 'distinct image')}, {labelled:,} of them with an "
        f"expert's label. {counted(len(quarantine), 'file') if len(quarantine) else 'No file'} had to be left out."
    )
    groups = manifest.groupby("group_id").size()
    together = groups[groups > 1]
    facts = Facts((
        ("Distinct images", count(len(manifest)), f"from {counted(len(sources), 'usable file')}"),
        ("Exact copies", count(len(sources) - len(manifest)), "byte for byte; counted once"),
        ("Belong together", count(together.sum()), f"in {counted(len(together), 'group')}: near-copies or one patient"),
        ("Quarantined", count(len(quarantine)), f"{percent(len(quarantine) / max(files, 1))} of the files"),
    ))  # fmt: skip
    return Section(anchor, title, steps, lead, (facts, _split(manifest), *_quarantine(quarantine)))


def checks(material: Material) -> Section:
    """Result of each data expectation."""
    anchor, title, steps = "checks", "Was the data fit for use?", ("validate",)
    if "validation" not in material:
        return Section(anchor, title, steps, "The data has not been checked yet.", missing="validate")
    expectations = material.json("validation", "validation.json").get("expectations", [])
    failed = sum(not entry.get("success") for entry in expectations)
    lead = f"Yes: all {len(expectations)} checks hold."
    if failed:
        lead = f"No: {failed} of {counted(len(expectations), 'check')} violated. Nothing was trained on this data."
    rows = [
        (
            str(entry.get("sentence") or entry.get("name") or DASH),
            str(entry.get("column") or DASH),
            _observed(entry.get("observed")),
            Mark("holds", "good") if entry.get("success") else Mark("violated", "bad"),
        )
        for entry in expectations
    ]
    table = Table("Data checks", ("Expectation", "Column", "Observed", "Result"), rows)
    remark = Note("Great Expectations ran these; its own pages are in validation/data_docs.", engineer=True)
    return Section(anchor, title, steps, lead, (table, remark))


def _split(manifest: pd.DataFrame) -> Table:
    """Images, groups and labels of each part."""
    part = manifest["split"].where(manifest["split"] != "train", "pool")
    part = part.mask(manifest["split"].eq("train") & manifest["label"].notna(), "labelled")
    classes = sorted(manifest["label"].dropna().unique())
    rows = []
    for key, name in PARTS.items():
        members = manifest[part == key]
        if len(members):
            figures = [len(members), members["group_id"].nunique()]
            figures += [int((members["label"] == label).sum()) for label in classes]
            rows.append((name, *map(count, figures), count(members["label"].isna().sum())))
    heads = ("Part", "Images#", "Groups#", *(f"{label}#" for label in classes), "Unlabelled#")
    return Table("How the images are split; a group never stands in both training and hold-out", heads, rows)


def _quarantine(quarantine: pd.DataFrame) -> tuple[Block, ...]:
    if quarantine.empty:
        return (Note("Every file could be used: nothing is in quarantine."),)
    counts = quarantine["reason"].value_counts().sort_index()
    reasons = [(REASONS.get(str(code), str(code)), str(code), count(files)) for code, files in counts.items()]
    rows = [
        (str(row.uri), REASONS.get(str(row.reason), str(row.reason)), str(row.detail or DASH))
        for row in quarantine.head(SHOWN).itertuples()
    ]
    caption = "Quarantined files"
    if len(quarantine) > SHOWN:
        caption += f": the first {SHOWN} of {len(quarantine):,}; all of them are in quarantine.parquet"
    return (
        Table("Quarantine by reason", ("Reason", "Code", "Files#"), reasons),
        Table(caption, ("File", "Reason", "Detail"), rows),
    )


def _observed(value: Any) -> str:
    """What an expectation saw, in a cell's length."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}: {inner}" for key, inner in value.items())
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
