"""A run whose model reads brightness, its evaluation, and its catalog as a foreign set: for external tests."""

import shutil
from pathlib import Path

import pytest
from brightness import new_run, seal

from scanloop.artifacts import read_table, write_table
from scanloop.config import EvaluateConfig, ExternalConfig
from scanloop.sections.evaluation import LearningCurveConfig, MapConfig, RobustnessConfig
from scanloop.sections.promotion import OperatingPointsConfig
from scanloop.steps.evaluate import evaluate

CONFIG = ExternalConfig(resamples=200, threshold=0.7, classes={"tumour": "cancer", "none": "normal"})


@pytest.fixture(scope="module", name="run")
def judged_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return new_run(tmp_path_factory.mktemp("run"), test=True)


@pytest.fixture(scope="module", name="evaluation")
def evaluated(run: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = EvaluateConfig(
        resamples=100, robustness=RobustnessConfig(slices=0), map=MapConfig(slices=0),
        learning_curve=LearningCurveConfig(draws=0), operating_points=OperatingPointsConfig(target_tpr=(0.8, 0.95)),
    )  # fmt: skip
    output = tmp_path_factory.mktemp("evaluated") / "evaluation"
    evaluate(config, **run, output=output)
    return output


def foreign(folder: Path, run: dict[str, Path]) -> Path:
    """The run's own catalog under other names of the classes: its first 20 labelled slices were never learnt from."""
    catalog = shutil.copytree(run["catalog"], folder / "catalog")
    shutil.rmtree(catalog / "manifest")
    manifest = read_table(run["catalog"], "manifest")
    names = {"cancer": "tumour", "normal": "none"}
    manifest["label"] = manifest["label"].map(names)
    write_table(catalog, "manifest", manifest)
    return seal(catalog)
