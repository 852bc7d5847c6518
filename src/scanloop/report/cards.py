"""The model card and the dataset card as files, written from artifacts; and the page's section that hands them out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scanloop.evaluation.figures import METRIC_NAMES
from scanloop.provenance import file_digest
from scanloop.report.blocks import Block, Downloads, Note, Section
from scanloop.report.intake import PARTS, REASONS
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, confidence, count, counted, interval, number, sentence
from scanloop.report.performance import holdout_words, noise_words

FOLDER = Path(__file__).parent
MODEL_CARD, DATASET_CARD = "MODEL_CARD.md", "DATASET_CARD.md"


def cards(material: Material) -> Section:
    """The cards, to take away."""
    anchor, title, steps = "cards", "What goes along with model and data", ("report",)
    files = written(material)
    remarks = {MODEL_CARD: "what the model is for, how good it is, its limits", DATASET_CARD: "what the data are"}
    blocks: list[Block] = [Downloads([(name, text, remarks[name]) for name, text in files.items()])]
    if MODEL_CARD not in files:
        blocks.append(Note("There is no model yet, so there is no model card."))
    blocks.append(Note("They stand beside this page as files, and in it: each link is the whole file.", engineer=True))
    lead = "Cards say in a page what others must know before they use the model or the data; hand them on with either."
    return Section(anchor, title, steps, lead, blocks)


def written(material: Material) -> dict[str, str]:
    """Text of each card by its file's name; the model card only where there is a model."""
    environment = Environment(  # noqa: S701  Markdown: `finalize` escapes what stands in it
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_plain,
    )  # fmt: skip
    environment.filters |= {"number": number, "count": count}
    shared = {"title": material.title, "intended_use": material.intended_use, "spurious": _spurious(material)}
    contexts = {DATASET_CARD: _dataset(material)} | ({MODEL_CARD: _model(material)} if _has_model(material) else {})
    templates = {DATASET_CARD: "dataset_card.md.j2", MODEL_CARD: "model_card.md.j2"}
    return {
        name: environment.get_template(templates[name]).render(shared | context)
        for name, context in sorted(contexts.items(), reverse=True)
    }


def _plain(value: Any) -> str:
    """A value as one line of Markdown in which nothing of it is markup."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("<", "&lt;").replace("`", "\\`").replace("*", "\\*")


def _cell(value: Any) -> str:
    return str(value).replace("|", "/")


def _has_model(material: Material) -> bool:
    return bool(material.json("bundle", "bundle.json").get("architecture"))


def _model(material: Material) -> dict[str, Any]:
    about, classes = material.json("bundle", "bundle.json"), material.json("bundle", "classes.json")
    names = [str(name) for name in classes["classes"]]
    counts = [
        {"kind": kind.replace("_", " "), "cells": [count(by_class.get(name, 0)) for name in names],
         "all": count(sum(by_class.values()))}
        for kind, by_class in about["counts"].items()
    ]  # fmt: skip
    model = {
        "digest": file_digest(material.artifacts["bundle"] / "bundle.json"),
        "data_digest": about["data_digest"],
        "architecture": about["architecture"],
        "encoder": about["encoder"],
        "stage": about.get("training", {}).get("stage", "unknown"),
        "classes": [_cell(name) for name in names],
        "positive_class": classes["positive_class"],
        "calibration": material.json("bundle", "calibration.json"),
        "counts": counts,
    }
    return {
        "model": model,
        "decision": _decision(material.json("promotion", "promotion.json")),
        "metrics": [_metric(name, entry) for name, entry in material.deployed.items() if name in METRIC_NAMES],
        "holdout": holdout_words(material.metrics),
        "confidence": confidence(material.deployed.get("macro_f1")),
        "per_class": [
            {"name": _cell(name), "images": count(row["images"]), "recall": interval(row["recall"]),
             "precision": interval(row["precision"])}
            for name, row in material.metrics.get("per_class", {}).items()
        ],
        "noise": noise_words(material).strip(),
        "limits": _limits(material),
    }  # fmt: skip


def _metric(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": METRIC_NAMES[name], "value": interval(entry), "n": count(entry["n"]), "groups": count(entry["groups"]),
    }  # fmt: skip


def _decision(facts: Mapping[str, Any]) -> str:
    if not facts:
        return "not decided by this run."
    return f"{facts.get('decision', DASH)}. {sentence(facts.get('reason'))}"


def _limits(material: Material) -> list[str]:
    lines = [
        "A probability is calibrated for images like those it was fitted on: watch drift, calibrate again after it.",
        "An image that shows none of the classes still gets one of them, sometimes with high confidence.",
    ]
    robust = material.json("evaluation", "robustness.json")
    if rows := robust.get("alterations"):
        worst = min(rows, key=lambda row: float(row["same_answer"]["value"]))
        lines.append(
            f"Of {len(rows)} alterations tried, {worst['setting']} moves it most: the answer stays on "
            f"{interval(worst['same_answer'])} of {counted(robust['images'], 'image')} ({robust['basis']})."
        )
    parts = material.json("evaluation", "subgroups.json")
    for name, stratum in (parts.get("strata") or {}).items():
        for value, part in stratum["parts"].items():
            gap = part.get("accuracy_gap")
            if gap and gap["high"] < 0:
                lines.append(
                    f"Less accurate for {name} {value}: by {interval(gap, difference=True)}, n = {part['images']}."
                )
    measured = ", ".join(parts.get("strata") or {}) or "none"
    lines.append(f"Subgroups that were looked at: {measured}. Of all others nothing is known.")
    return lines


def _spurious(material: Material) -> list[str]:
    origins = material.json("triage", "triage.json").get("origins") or []
    lines = [sentence(one["verdict"]) for one in origins]
    if not lines:
        lines = ["Nothing that tells an image's origin (site, machine, view) was known, so none could be looked for."]
    return [*lines, "Text, borders and devices in the pixels were not searched for a tie to the label."]


def _dataset(material: Material) -> dict[str, Any]:
    facts, manifest = material.json("catalog", "catalog.json"), material.manifest
    classes = [str(name) for name in facts["classes"]]
    part = manifest["split"].where(manifest["split"] != "train", manifest["label"].map(_train_part, na_action=None))
    splits = []
    for name, title in PARTS.items():
        rows = manifest[part == name]
        by_class = [count((rows["label"] == one).sum()) for one in classes]
        splits.append({
            "name": title, "cells": by_class, "unlabelled": count(rows["label"].isna().sum()), "all": count(len(rows)),
            "groups": count(rows["group_id"].nunique()),
        })  # fmt: skip
    quarantine = material.table("catalog", "quarantine.parquet")["reason"].value_counts()
    sources = len(material.table("catalog", "sources.parquet"))
    groups = manifest.groupby("group_id").size()
    return {
        "data_digest": facts["data_digest"],
        "task": f"telling {', '.join(classes)} apart, one class an image",
        "licence": material.licence,
        "classes": [_cell(name) for name in classes],
        "came_in": f"{counted(sources, 'usable file')} hold {counted(len(manifest), 'distinct image')}; "
        f"{counted(int(quarantine.sum()), 'file')} left out.",
        "grouped": f"{counted(len(groups), 'group')} of images of one patient or of near-copies, the largest of "
        f"{count(groups.max())}; a group is never cut by a split.",
        "facts": _facts(manifest),
        "splits": splits,
        "quarantined": [
            {"reason": REASONS.get(str(reason), str(reason)), "files": count(files)}
            for reason, files in sorted(quarantine.items(), key=lambda item: str(item[0]))
        ],
        "privacy": _privacy(material),
    }


def _train_part(label: Any) -> str:
    return "labelled" if isinstance(label, str) else "pool"


def _facts(manifest: Any) -> list[str]:
    lines = []
    for column, words in (("patient_id", "Patients named"), ("site", "Sites"), ("modality", "Modalities")):
        if column in manifest and (known := manifest[column].dropna().nunique()):
            lines.append(f"{words}: {count(known)}.")
    if "height" in manifest and manifest["height"].notna().any():
        sides = manifest[["height", "width"]].min(axis=1)
        lines.append(
            f"Short side: {count(sides.min())} to {count(sides.max())} pixels, median {count(sides.median())}."
        )
    return lines


def _privacy(material: Material) -> str:
    if not material.json("catalog", "deidentification.json"):
        return "Nothing was de-identified: names of files, and ids where the source gives some, are kept as they came."
    return (
        "Names, ids and paths are pseudonyms under a secret key; `deidentification.json` in the catalog says what was "
        "kept, withheld and not done. Faces are not removed."
    )
