"""The page's sections on what lies behind the metrics: altered images, subgroups, gain from labels, the map."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scanloop.evaluation.depth_figures import SEVERITIES, learning_curve_figure, map_figure, robustness_figure
from scanloop.report.blocks import Block, Note, Picture, Pictures, Section, Table
from scanloop.report.errors import judged
from scanloop.report.material import Material
from scanloop.report.numbers import DASH, confidence, count, counted, interval, number, sentence

METHODS = {"tsne": "t-SNE", "umap": "UMAP"}


def robustness(material: Material) -> Section:
    """What happens to the model's answers where images are darker, noisier, blurred, cropped, compressed."""
    anchor, title, steps = "robustness", "Does it bear worse images?", ("evaluate",)
    facts = material.json("evaluation", "robustness.json")
    if not facts:
        return Section(anchor, title, steps, "It has not been tried yet.", missing="evaluate")
    rows = facts.get("alterations") or []
    if not rows:
        return Section(anchor, title, steps, sentence(facts.get("reason")))
    size = f"{counted(facts['images'], 'image')} in {counted(facts['groups'], 'group')}"
    worst = min(rows, key=lambda row: float(row["same_answer"]["value"]))
    lead = (
        f"The answer changes most under {worst['kind']} ({worst['setting']}): it stays on "
        f"{interval(worst['same_answer'])} of {size}."
    )
    judged_by_labels = bool(facts.get("reference"))
    measure = "accuracy" if judged_by_labels else "same_answer"
    heading = "Change of accuracy" if judged_by_labels else "Share of images whose answer stays"
    picture = Picture.drawn(
        robustness_figure(rows, measure, f"{heading}, n = {facts['images']:,}"),
        "robustness",
        f"{heading} for each alteration at three strengths; the table below holds the numbers.",
        f"{sentence(facts['explanation'])} Lines are {confidence(rows[0]['same_answer'])}s, paired by image.",
    )
    blocks: list[Block] = [Pictures((picture,)), _alterations(rows, judged_by_labels)]
    if judged_by_labels:
        reached = ", ".join(f"{name} {interval(entry)}" for name, entry in facts["reference"].items())
        blocks.append(Note(f"Without alteration these images give: {reached}.", engineer=True))
    blocks.append(Note(
        "Alterations are simple operations on stored images. They stand for other machines and files, and no list of "
        "them proves that another hospital's images are borne. Intervals hold one by one."
    ))  # fmt: skip
    return Section(anchor, title, steps, lead, blocks)


def _alterations(rows: Sequence[Mapping[str, Any]], judged_by_labels: bool) -> Table:
    names = ("accuracy", "macro_f1", "auroc", "ece") if judged_by_labels else ()
    heads = {"accuracy": "Accuracy#", "macro_f1": "Macro-F1#", "auroc": "AUROC#", "ece": "ECE#"}
    cells = [
        (
            f"{row['setting']} ({SEVERITIES[int(row['severity']) - 1]})",
            *(interval(row["changes"].get(name), difference=True) for name in names),
            interval(row["same_answer"]),
            interval(row["confidence_change"], difference=True),
        )
        for row in rows
    ]
    columns = ("Alteration", *(heads[name] for name in names), "Same answer#", "Change of confidence#")
    return Table("Altered minus unaltered, on the same images", columns, cells)


def subgroups(material: Material) -> Section:
    """Metrics of parts of the hold-out, and each part's gap to the others."""
    anchor, title, steps = "subgroups", "Is it as good for everybody?", ("evaluate",)
    facts = material.json("evaluation", "subgroups.json")
    if not facts:
        return Section(anchor, title, steps, "Parts of the hold-out have not been measured yet.", missing="evaluate")
    strata: Mapping[str, Any] = facts["strata"]
    blocks: list[Block] = []
    for name, stratum in strata.items():
        rows = [
            (
                value, f"{count(part['images'])} ({count(part['groups'])})",
                *(interval(part["metrics"][metric]) for metric in ("accuracy", "macro_f1", "auroc", "ece")),
                interval(part.get("accuracy_gap"), difference=True),
            )
            for value, part in stratum["parts"].items()
        ]  # fmt: skip
        hidden, unknown = stratum["hidden"], stratum["unknown"]
        if hidden["parts"] or unknown:
            small = f"{counted(hidden['parts'], 'part')} under {facts['min_groups']} groups; {unknown:,} unknown"
            rows.append((f"Not shown: {small}", count(hidden["images"] + unknown), *[DASH] * 5))
        heads = (name, "Images (groups)#", "Accuracy#", "Macro-F1#", "AUROC#", "ECE#", "Accuracy: gap to the others#")
        blocks.append(Table(f"By {name}", heads, rows))
    blocks.append(Note(facts["note"]))
    return Section(anchor, title, steps, _parts_words(facts), blocks)


def _parts_words(facts: Mapping[str, Any]) -> str:
    """Which parts of the hold-out the model is shown to serve better or worse."""
    if not facts["comparisons"]:
        return "No part of the hold-out was large enough to be measured by itself."
    clear = [
        f"{name} {value}"
        for name, stratum in facts["strata"].items()
        for value, part in stratum["parts"].items()
        if (gap := part.get("accuracy_gap")) and (gap["low"] > 0 or gap["high"] < 0)
    ]
    size = f"{counted(facts['comparisons'], 'part')} of the hold-out measured"
    if clear:
        return f"{size}: accuracy differs from that on the other images for {', '.join(clear)}."
    return f"{size}: for none is accuracy shown to differ from the other images. A small difference would go unseen."


def learning_curve(material: Material) -> Section:
    """Whether more labels would help."""
    anchor, title, steps = "labels-gain", "Would more labels help?", ("evaluate",)
    facts = material.json("evaluation", "learning_curve.json")
    if not facts:
        return Section(anchor, title, steps, "It has not been looked at yet.", missing="evaluate")
    points = facts.get("points") or []
    if not points:
        return Section(anchor, title, steps, sentence(facts.get("reason") or "too few labels to tell"))
    sample = f"n = {points[-1]['macro_f1']['n']:,} judged ({points[-1]['macro_f1']['groups']:,} groups)"
    picture = Picture.drawn(
        learning_curve_figure(points, sample),
        "learning-curve",
        "Macro-F1 against labelled groups: "
        + ", ".join(f"{point['groups']:.0f} groups {number(point['macro_f1']['value'])}" for point in points) + ".",
        "How good the simple model (a linear head on frozen features) gets with part of the experts' labels. A curve "
        "that still rises at its end says that labels are worth their price; a flat one, that they are not for it.",
    )  # fmt: skip
    rows = [
        (
            f"{point['groups']:.0f}", interval(point["macro_f1"]),
            f"{number(point['draw_low'])} to {number(point['draw_high'])}",
        )
        for point in points
    ]  # fmt: skip
    table = Table(
        "Macro-F1 by labelled groups", ("Labelled groups#", "Macro-F1, mean over draws#", "Single draws#"), rows
    )
    note = Note(
        f"{facts['draws']} nested orders of randomly drawn labels, at most {facts.get('labelled', 0):,} images; each "
        "head tunes its penalty on its own part. Nothing is extrapolated.",
        engineer=True,
    )
    return Section(anchor, title, steps, _gain_words(facts.get("gain")), (Pictures((picture,)), table, note))


def _gain_words(gain: Mapping[str, Any] | None) -> str:
    """Whether the later half of the labels helped."""
    if not gain:
        return "There are too few labels to compare two numbers of them."
    entry = gain["macro_f1"]
    answer = (
        "They did so far" if entry["low"] > 0 else "They did not so far" if entry["high"] < 0 else "It cannot be told"
    )
    sizes = f"from {gain['from_groups']:.0f} to {gain['to_groups']:.0f} labelled groups"
    return f"{answer}: {sizes} macro-F1 changes by {interval(entry, difference=True)}."


def feature_map(material: Material) -> Section:
    """Features before and after fine-tuning, on a plane."""
    anchor, title, steps = "map", "How does the network see the images?", ("evaluate",)
    facts = material.json("evaluation", "map.json")
    if not facts or "catalog" not in material:
        return Section(anchor, title, steps, "The features have not been laid out yet.", missing="evaluate")
    names = list(facts.get("features") or {})
    if not names:
        return Section(anchor, title, steps, sentence(facts.get("reason")))
    points = _mapped(material)
    entries = {name: facts["features"][name].get("neighbour_agreement") for name in names}
    words = ", ".join(f"{interval(entry)} on {name} features" for name, entry in entries.items() if entry)
    lead = "Images that the network finds alike lie close together."
    if words:
        lead = f"The nearest other image of the hold-out has the same class for a share of {words}."
    seen = ""
    if facts.get("holdout_learnt_from") and "fine-tuned" in names:
        seen = " The fine-tuned features have learnt from these labels: their share flatters them."
    picture = Picture.drawn(
        map_figure(points, sorted(names, reverse=True)),
        "feature-map",
        f"Scatter plots of {facts['images']:,} images by {METHODS[facts['method']]}, by label and by prediction.",
        "Each point is an image. Left: what experts said; right: what the model says, its errors on the hold-out "
        "ringed. Distances between clusters, and their sizes, mean nothing on such a map." + seen,
    )
    blocks: list[Block] = [Pictures((picture,))]
    if len(names) == 1:
        blocks.append(Note("The deployed model keeps the features frozen: before and after are the same."))
    blocks.append(Note(
        f"{METHODS[facts['method']]} of standardised features, reduced to 50 principal components; agreement by cosine "
        "in the full space, neighbours of the same group left out.", engineer=True,
    ))  # fmt: skip
    return Section(anchor, title, steps, lead, blocks)


def _mapped(material: Material) -> pd.DataFrame:
    points = material.table("evaluation", "map.parquet")
    said = material.table("evaluation", "predictions.parquet").drop_duplicates("slice_id").set_index("slice_id")
    points["label"] = points["slice_id"].map(dict(material.known_labels)).astype(object)
    points["prediction"] = points["slice_id"].map(said["label"]).astype(object)
    rows = judged(material)
    wrong = set() if rows is None else set(rows.loc[rows["label"] != rows["given_label"], "slice_id"])
    points["wrong"] = points["slice_id"].isin(wrong)
    return points
