"""The page's sections on performance: whether unlabelled images helped, and how good the model is."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from scanloop.evaluation import figures
from scanloop.evaluation.drawing import to_svg
from scanloop.report.blocks import Block, Note, Picture, Section, Table
from scanloop.report.material import Material
from scanloop.report.numbers import confidence, count, counted, interval, number

MEANINGS: Mapping[str, str] = {
    "accuracy": "Share of images that the model gets right",
    "macro_f1": "Balance of finding and not over-calling, each class weighing the same",
    "auroc": "Chance that a diseased image ranks above a healthy one; 0.5 is guessing",
    "ece": "Gap between the stated confidence and the truth; 0 is honest",
    "brier": "Mean squared error of the probabilities, summed over the classes; 0 is perfect, 2 the worst",
}


def holdout_words(metrics: Mapping[str, Any]) -> str:
    """What the numbers stand on: "99 images in 99 groups, held out by 4-fold repeated cross-validation"."""
    holdout = metrics.get("holdout", {})
    size = f"{counted(holdout.get('images', 0), 'image')} in {counted(holdout.get('groups', 0), 'independent group')}"
    if holdout.get("kind") != "cross_validation":
        return f"{size}, set aside before training"
    return f"{size}, each judged by models that never saw its group (cross-validation, repeated {holdout.get('repeats', 1)} times)"


def arms(material: Material) -> Section:
    """Supervised against semi-supervised, with the paired difference."""
    anchor, title, steps = "arms", "Did the unlabelled images help?", ("retrain", "evaluate")
    metrics = material.metrics
    if not metrics:
        return Section(anchor, title, steps, "The models have not been compared yet.", missing="evaluate")
    difference = metrics.get("difference", {})
    both = metrics.get("arms", {})
    rows = [
        (
            figures.METRIC_NAMES[name],
            MEANINGS[name],
            interval(both.get("supervised", {}).get(name)),
            interval(both.get("semi_supervised", {}).get(name)),
            interval(difference.get(name), difference=True),
        )
        for name in MEANINGS
        if name in difference
    ]
    bounds = confidence(difference.get("macro_f1"))
    table = Table(
        f"Each metric with its {bounds}",
        ("Metric", "What it means", "Supervised#", "Semi-supervised#", "Difference#"),
        rows,
    )
    picture = _picture(
        figures.arms_figure(both, difference, material.sample()), "arms",
        "Intervals of both arms for each metric, and of their difference: " + "; ".join(f"{row[0]} {row[4]}" for row in rows),
        f"Points are measured values, lines their {bounds}s. On the right the difference on the same images: a line that "
        "crosses zero means that neither arm is shown to be better.",
    )  # fmt: skip
    return Section(anchor, title, steps, difference_words(material), (picture, table))


def difference_words(material: Material) -> str:
    """What the paired difference of macro-F1 says, in a sentence."""
    entry = material.metrics.get("difference", {}).get("macro_f1") or {}
    if entry.get("value") is None:
        return "The two arms could not be compared."
    if material.metrics.get("deployed_arm") == "supervised":
        return "No machine label was promoted, so both arms are the same model, trained on experts' labels alone."
    size = f"macro-F1 {interval(entry, difference=True)}"
    if entry["low"] > 0:
        return f"Yes: learning from unlabelled images too made the model better, {size}."
    if entry["high"] < 0:
        return f"No: learning from unlabelled images too made the model worse, {size}."
    return f"It cannot be told: the difference is compatible with none, {size}."


def performance(material: Material) -> Section:
    """ROC, precision-recall, reliability and confusion of the deployed model."""
    anchor, title, steps = "performance", "How good is the model?", ("evaluate",)
    curves = material.json("evaluation", "curves.json")
    deployed = material.metrics.get("deployed_arm", "supervised")
    drawn = curves.get("arms", {}).get(deployed)
    if not drawn:
        return Section(anchor, title, steps, "The model has not been measured yet.", missing="evaluate")
    lead = f"Measured on {holdout_words(material.metrics)}. Model: the {figures.ARM_NAMES[deployed].lower()} arm."
    blocks: list[Block] = [*_pictures(material, drawn)]
    if per_class := material.metrics.get("per_class"):
        rows = [
            (name, count(row.get("images")), interval(row.get("recall")), interval(row.get("precision")))
            for name, row in per_class.items()
        ]
        bounds = confidence(material.deployed.get("macro_f1"))
        blocks.append(
            Table(
                f"Class by class, with {bounds}s",
                ("Class", "Images#", "Sensitivity: found of those there#", "Precision: right of those called#"),
                rows,
            )
        )
    blocks.append(Note(
        "Intervals resample whole groups (BCa bootstrap); where nothing varies they are exact (Clopper-Pearson). "
        "With repeated cross-validation values and curves are means over the repeats.",
        engineer=True,
    ))  # fmt: skip
    return Section(anchor, title, steps, lead, blocks)


def _pictures(material: Material, drawn: Mapping[str, Any]) -> list[Picture]:
    reached, sample = material.deployed, material.sample()
    area, error = interval(reached.get("auroc")), interval(reached.get("ece"))
    matrix = material.metrics.get("confusion", {})
    names = ", ".join(drawn.get("roc", {})) or "each class"
    ap = ", ".join(f"{name} {number(curve['average_precision'])}" for name, curve in drawn.get("pr", {}).items())
    found = [
        _picture(
            figures.roc_figure(drawn, area, sample), "roc", f"ROC curve of {names}; AUROC {area}.",
            "Every cut-off of the model: how many sick images it finds (upwards) for how many false alarms (to the right). "
            "The diagonal is guessing.",
        ),
        _picture(
            figures.precision_recall_figure(drawn, sample), "pr", f"Precision-recall curve; average precision {ap}.",
            "Of the images that the model calls, how many are right (upwards), when it is to find this share of all (to the "
            "right). With rare disease, look here rather than at the ROC curve.",
        ),
        _picture(
            figures.reliability_figure(drawn, error, sample), "reliability", f"Reliability diagram; ECE {error}.",
            "Whether the model's confidence can be believed: points on the diagonal are honest, below it the model promises "
            "too much. The bars below count the images.",
        ),
    ]  # fmt: skip
    if matrix.get("counts"):
        found.append(_picture(
            figures.confusion_figure(matrix["counts"], matrix.get("classes", []), sample), "confusion",
            f"Confusion matrix of {', '.join(matrix.get('classes', []))}: {matrix['counts']}.",
            "What experts said (rows) against what the model says (columns). Blue is agreement.",
        ))  # fmt: skip
    return found


def _picture(figure: Figure, name: str, alt: str, caption: str) -> Picture:
    svg = Markup(to_svg(figure, name))  # noqa: S704  drawn by us, text escaped
    return Picture(svg, alt, caption, half=name != "arms")
