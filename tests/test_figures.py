"""Figures: the same bytes each time, nothing drawn that nobody can see."""

import re

import numpy as np
import pandas as pd

from scanloop.evaluation.drawing import to_svg
from scanloop.evaluation.figures import confusion_figure, roc_figure
from scanloop.evaluation.maps import MOST_POINTS, loss_figure, silhouette_figure, thin, triage_figure
from scanloop.report.page import FOLDER


def test_a_figure_is_the_same_bytes_twice_and_its_ids_begin_with_its_name() -> None:
    curve = {"roc": {"cancer": {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]}}}
    drawings = [to_svg(roc_figure(curve, "1.000", "n = 3"), "roc") for _ in range(2)]
    assert drawings[0] == drawings[1]
    assert drawings[0].startswith("<svg")
    assert all(name.startswith("roc-") for name in re.findall(r'\bid="([^"]+)"', drawings[0]))
    assert "AUROC 1.000" in drawings[0]


def test_a_dollar_sign_in_a_class_name_is_no_mathematics() -> None:
    svg = to_svg(confusion_figure([[3, 1], [0, 4]], ["a$b$", "<c>"], "n = 8"), "confusion")
    assert ">a$b$<" in svg
    assert "&lt;c&gt;" in svg
    assert "75%" in svg


def test_a_map_of_many_images_is_thinned_and_keeps_the_labelled_ones() -> None:
    rng = np.random.default_rng(3)
    points = pd.DataFrame(rng.normal(size=(9000, 2)), columns=["x", "y"])
    points["cluster"] = rng.integers(0, 4, 9000)
    points["label"] = pd.Series(["cancer" if row % 90 == 0 else None for row in range(9000)], dtype=object)
    drawn = thin(points)
    assert len(drawn) == MOST_POINTS
    assert drawn["label"].notna().sum() == 100
    assert thin(points).equals(drawn)
    assert "Cluster 3" in to_svg(triage_figure(drawn), "map")
    assert "k = 3" in to_svg(silhouette_figure({2: 0.1, 3: 0.2}, 3), "silhouette")
    steps = pd.DataFrame({"epoch": [1, 1, 2], "step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]})
    assert "Optimiser step" in to_svg(loss_figure(steps), "loss")


def test_text_stands_out_from_its_background_by_wcag_aa_in_light_and_dark() -> None:
    css = (FOLDER / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in css.split("prefers-color-scheme: dark")[:2]
    )
    for colours in (light, light | dark):
        for text in ("ink", "soft", "accent"):
            for ground in ("paper", "surface", "good-surface", "bad-surface"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for tone in ("good", "bad"):
            assert contrast(colours[tone], colours["paper"]) >= 4.5
            assert contrast(colours[tone], colours[f"{tone}-surface"]) >= 4.5
        for series in ("blue", "vermillion", "green", "purple"):
            assert contrast(colours[series], colours["paper"]) >= 3, series


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
