"""A bundle judged on a labelled set from elsewhere at the operating points of its own evaluation."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from foreign_set import CONFIG, evaluated, foreign, judged_run  # noqa: F401  fixtures
from scipy.stats import binomtest

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.errors import ArtifactError
from scanloop.evaluation.external import at_points
from scanloop.evaluation.operating_points import Scored
from scanloop.steps.validate_external import validate_external


def judged_at(run: dict[str, Path], evaluation: Path, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    catalog, bundle = foreign(folder, run), run["bundle"]
    validate_external(CONFIG, catalog=catalog, bundle=bundle, evaluation=evaluation, output=folder / "external")
    return read_json(folder / "external" / "external.json"), read_table(folder / "external", "predictions.parquet")


def test_at_each_operating_point_of_its_evaluation_the_counts_are_those_of_the_images(
    run: dict[str, Path], evaluation: Path, tmp_path: Path
) -> None:
    found, table = judged_at(run, evaluation, tmp_path)
    chosen = read_json(evaluation / "metrics.json")["operating_points"]
    assert [(one["target"], one["aimed_at"]) for one in chosen] == [("tpr", 0.8), ("tpr", 0.95), ("fpr", 0.05)]
    assert len({point["threshold"] for point in chosen}) > 1
    sick = table["given_label"] == "cancer"
    for point, told in zip(found["operating_points"], chosen, strict=True):
        assert [point[name] for name in ("target", "threshold")] == [told[name] for name in ("target", "threshold")]
        called = table["probability"] >= told["threshold"]
        for name, of, right in (
            ("sensitivity", sick, called), ("specificity", ~sick, ~called), ("ppv", called, sick),
            ("npv", ~called, ~sick),
        ):  # fmt: skip
            assert point[name]["n"] == of.sum()
            if of.any():
                assert point[name]["value"] == pytest.approx((of & right).sum() / of.sum()), name
                assert point[name]["low"] <= point[name]["value"] <= point[name]["high"]
            else:
                assert (point[name]["value"], point[name]["low"], point[name]["high"]) == (None, 0, 1)


def test_on_the_very_hold_out_the_points_give_what_was_promised(
    run: dict[str, Path], evaluation: Path, tmp_path: Path
) -> None:
    """The foreign set is the run's own catalog: what is left of it after training is the hold-out."""
    found, _ = judged_at(run, evaluation, tmp_path)
    for point, told in zip(
        found["operating_points"], read_json(evaluation / "metrics.json")["operating_points"], strict=True
    ):
        tpr, fpr = told["tpr"], told["fpr"]
        assert point["promised"]["sensitivity"] == point["sensitivity"] == tpr
        assert point["promised"]["specificity"] == point["specificity"]
        bounds = [point["specificity"][name] for name in ("value", "low", "high")]
        assert bounds == pytest.approx([1 - fpr[name] for name in ("value", "high", "low")])
        for name in ("ppv", "npv"):
            assert point["promised"][name]["value"] == pytest.approx(point[name]["value"], nan_ok=True), name
        difference = point["difference"]["sensitivity"]
        assert difference["value"] == 0
        assert difference["high"] == pytest.approx(np.hypot(tpr["high"] - tpr["value"], tpr["value"] - tpr["low"]))


def test_with_one_image_a_group_the_intervals_are_exact_and_predictive_values_follow_the_prevalence() -> None:
    draw = np.random.default_rng(2)
    positive = draw.random(400) < 0.1
    scores = np.clip(draw.normal(0.35 + 0.3 * positive, 0.15), 0, 1)
    rate = dict.fromkeys(("n", "groups"), 50) | {"confidence": 0.95, "method": "exact"}
    told = {
        "target": "tpr", "aimed_at": 0.9, "threshold": 0.5, "chosen_on": "validation",
        "tpr": rate | {"value": 0.9, "low": 0.8, "high": 0.96}, "fpr": rate | {"value": 0.2, "low": 0.1, "high": 0.3},
    }  # fmt: skip
    (point,) = at_points([told], Scored(scores, positive, np.arange(400).astype(str)), 0.9)
    called = scores >= 0.5
    for name, of, right in (
        ("sensitivity", positive, called), ("specificity", ~positive, ~called), ("ppv", called, positive),
        ("npv", ~called, ~positive),
    ):  # fmt: skip
        exact = binomtest(int((of & right).sum()), int(of.sum())).proportion_ci(0.9, "exact")
        assert (point[name].low, point[name].high) == pytest.approx((exact.low, exact.high)), name
    share = positive.mean()
    assert point["promised"]["ppv"].value == pytest.approx(0.9 * share / (0.9 * share + 0.2 * (1 - share)))
    assert point["promised"]["npv"].value == pytest.approx(0.8 * (1 - share) / (0.8 * (1 - share) + 0.1 * share))
    assert point["promised"]["specificity"].low == pytest.approx(0.7)


def test_images_that_chose_the_thresholds_do_not_judge_them(
    run: dict[str, Path], evaluation: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(evaluation, tmp_path / "evaluation")
    table = read_table(copy, "predictions.parquet")
    choosers = read_table(run["catalog"], "manifest")["slice_id"][:6]
    table.loc[table["slice_id"].isin(choosers), "split"] = "validation"
    write_table(copy, "predictions.parquet", table)
    found, judges = judged_at(run, copy, tmp_path)
    assert (found["images"], found["left_out_as_choosers_of_thresholds"]) == (14, 6)
    assert not set(judges["slice_id"]) & set(choosers)


def test_an_evaluation_of_another_model_or_without_points_is_refused(
    run: dict[str, Path], evaluation: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(run["bundle"], tmp_path / "bundle")
    write_json(other / "artifact.json", {"key": "f" * 64})
    catalog = foreign(tmp_path, run)
    inputs = {"catalog": catalog, "output": tmp_path / "external"}
    with pytest.raises(ArtifactError, match=r"another model \(key .*\) than .*bundle \(key ffffffffffff\): give the"):
        validate_external(CONFIG, bundle=other, evaluation=evaluation, **inputs)
    silent = shutil.copytree(evaluation, tmp_path / "evaluation")
    write_json(silent / "metrics.json", read_json(silent / "metrics.json") | {"operating_points": []})
    with pytest.raises(ArtifactError, match="leave --evaluation out and give a --threshold"):
        validate_external(CONFIG, bundle=run["bundle"], evaluation=silent, **inputs)
    with pytest.raises(ArtifactError, match=r"artifact\.json is missing"):
        validate_external(CONFIG, bundle=run["bundle"], evaluation=tmp_path / "nowhere", **inputs)
