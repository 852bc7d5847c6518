"""The page's sections on performance: whether unlabelled images helped, and how good the model is."""

from collections.abc import Mapping
from typing import Any

from scanloop.evaluation import figures
from scanloop.report import honesty, operating
from scanloop.report.blocks import Block, Cell, Note, Picture, Pictures, Section, Table, Term
from scanloop.report.material import Material
from scanloop.report.numbers import confidence, count, counted, interval, number

MEANINGS: Mapping[str, str] = {
    "accuracy": "Share of images that the model gets right",
    "macro_f1": "Finding what is there without calling what is not, each class weighing the same",
    "auroc": "Chance that an image of the class ranks above another; 0.5 is guessing",
    "ece": "Gap between stated confidence and truth; 0 is honest",
    "brier": "Squared error of the probabilities over all classes; 0 is perfect, 2 the worst",
}


def arms(material: Material) -> Section:
    """Supervised against semi-supervised, with the paired difference."""
    anchor, title, steps = "arms", "Did the unlabelled images help?", ("retrain", "evaluate")
    metrics = material.metrics
    if not metrics:
        return Section(anchor, title, steps, "The models have not been compared yet.", missing="evaluate")
    difference, both = metrics.get("difference", {}), metrics.get("arms", {})
    bounds = confidence(difference.get("macro_f1"))
    rows: list[tuple[Cell, ...]] = [
        (
            Term(figures.METRIC_NAMES[name], meaning),
            *(interval(both.get(arm, {}).get(name)) for arm in figures.ARM_NAMES),
            interval(difference.get(name), difference=True),
        )
        for name, meaning in MEANINGS.items()
        if name in difference
    ]
    heads = ("Metric", *(f"{name}#" for name in figures.ARM_NAMES.values()), "Difference#")
    picture = Picture.drawn(
        figures.arms_figure(both, difference, material.sample()),
        "arms",
        "Intervals of both arms for each metric, and of their difference; the table below holds the numbers.",
        f"Points are measured values, lines their {bounds}s. Right: the difference on the same images. A line that "
        "crosses zero means that neither arm is shown to be better.",
    )
    blocks: list[Block] = [Pictures((picture,)), Table(f"Each metric with its {bounds}", heads, rows)]
    if remark := same_rows_words(material):
        blocks.append(Note(remark))
    return Section(anchor, title, steps, difference_words(metrics), blocks)


def performance(material: Material) -> Section:
    """ROC, precision-recall, reliability and confusion of the deployed model."""
    anchor, title, steps = "performance", "How good is the model?", ("evaluate",)
    deployed = material.metrics.get("deployed_arm", "supervised")
    drawn = material.json("evaluation", "curves.json").get("arms", {}).get(deployed)
    if not drawn:
        return Section(anchor, title, steps, "The model has not been measured yet.", missing="evaluate")
    lead = f"Measured on {holdout_words(material.metrics)}."
    blocks: list[Block] = [Pictures(_pictures(material, drawn), columns=2)]
    if per_class := material.metrics.get("per_class"):
        rows = [
            (name, count(row.get("images")), interval(row.get("recall")), interval(row.get("precision")))
            for name, row in per_class.items()
        ]
        heads = ("Class", "Images#", "Sensitivity: found of those there#", "Precision: right of those called#")
        blocks.append(Table(f"Class by class, with {confidence(material.deployed.get('macro_f1'))}s", heads, rows))
    blocks += operating.blocks(material) + honesty.blocks(material)
    arm = figures.ARM_NAMES.get(deployed, deployed).lower()
    blocks.append(
        Note(
            f"Model: the {arm} arm. Intervals resample whole groups (BCa bootstrap) and are exact (Clopper-Pearson) "
            "where nothing varies. With repeated cross-validation, values and curves are means over the repeats.",
            engineer=True,
        )
    )
    return Section(anchor, title, steps, lead, blocks)


def difference_words(metrics: Mapping[str, Any]) -> str:
    """What the paired difference of macro-F1 says, in a sentence."""
    entry = metrics.get("difference", {}).get("macro_f1") or {}
    if entry.get("value") is None:
        return "The two arms could not be compared."
    if metrics.get("deployed_arm") == "supervised":
        return "No machine label was learnt from, so both arms are one model, trained on experts' labels alone."
    size = f"macro-F1 {interval(entry, difference=True)}"
    if entry["low"] > 0:
        return f"Yes: learning from unlabelled images as well made the model better, {size}."
    if entry["high"] < 0:
        return f"No: learning from unlabelled images as well made the model worse, {size}."
    return f"It cannot be told: the difference may be none, {size}."


def same_rows_words(material: Material) -> str:
    """That the gate and the comparison of the arms stand on the same images, where they do; empty elsewhere."""
    gate = material.json("pseudo_labels", "certificate.json").get("gate") or {}
    kinds = {gate.get("kind"), material.metrics.get("holdout", {}).get("kind")}
    if kinds != {"cross_validation"} or material.metrics.get("deployed_arm") != "semi_supervised":
        return ""
    return (
        "No test split was set aside: the gate that let the machine labels in and this comparison stand on the same "
        "labelled images, by cross-validation. That machine labels do no harm was therefore looked at twice, and not "
        "proven twice; a test split, or newly drawn labels, would be a second proof."
    )


def holdout_words(metrics: Mapping[str, Any]) -> str:
    """What the numbers stand on: how many images and groups, and how they were held out."""
    holdout = metrics.get("holdout", {})
    size = f"{counted(holdout.get('images', 0), 'image')} in {counted(holdout.get('groups', 0), 'independent group')}"
    if holdout.get("kind") != "cross_validation":
        return f"{size}, set aside before training"
    repeats = counted(int(holdout.get("repeats") or 1), "time")
    return f"{size}, each judged by models that never saw its group (cross-validation, done {repeats})"


def noise_words(material: Material) -> str:
    """What the ECE would be by chance alone, at this number of images."""
    honest = material.metrics.get("calibration", {}).get(material.metrics.get("deployed_arm"))
    if not honest:
        return ""
    mean, high = number(honest["ece_noise"]), number(honest["ece_noise_high"])
    return f" A perfect model with these confidences would show an ECE of {mean}, one in twenty above {high}."


def _pictures(material: Material, drawn: Mapping[str, Any]) -> list[Picture]:
    reached, sample = material.deployed, material.sample()
    area, error = interval(reached.get("auroc")), interval(reached.get("ece"))
    average = ", ".join(f"{name} {number(curve['average_precision'])}" for name, curve in drawn.get("pr", {}).items())
    names = list(drawn.get("roc", {}))
    shown = names[0] if len(names) == 1 else "each class"
    matrix, classes = drawn.get("confusion", []), drawn.get("classes", [])
    points = operating.of_the_drawn_class(material, names)
    repeated = (material.metrics.get("holdout", {}).get("repeats") or 1) > 1
    return [
        Picture.drawn(
            figures.roc_figure(drawn, area, sample, points),
            "roc",
            f"ROC curve; AUROC {area}.",
            f"Every cut-off of the model: the share of the images of {shown} that it finds (up) for the share of the "
            "others that it takes for them (right). The dashed line is guessing.",
        ),
        Picture.drawn(
            figures.precision_recall_figure(drawn, sample, points),
            "pr",
            f"Precision-recall curve; average precision: {average}.",
            f"How many of the images called {shown} are right (up) when this share of all is to be found (right). "
            "Where a class is rare, look here rather than at the ROC curve.",
        ),
        Picture.drawn(
            figures.reliability_figure(drawn, error, sample),
            "reliability",
            f"Reliability diagram; ECE {error}.",
            "Whether the model's confidence can be believed. Points on the dashed line are honest; below it the model "
            "promises too much. The bars count the images." + noise_words(material),
        ),
        Picture.drawn(
            figures.confusion_figure(matrix, classes, sample),
            "confusion",
            f"Confusion matrix, true classes in rows, of {', '.join(classes)}: {matrix}.",
            "What experts said (rows) against what the model says (columns), with the share of each row. Blue is "
            "agreement, orange is error." + (" Counts are means over the repeats." if repeated else ""),
        ),
    ]
