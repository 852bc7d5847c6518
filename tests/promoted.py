"""Evaluations with mistakes as planned, and what is asked of the registry: what the tests of promote start from."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chain import Chain
from mlflow.tracking import MlflowClient

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.config import PromoteConfig
from scanloop.steps.promote import promote
from scanloop.tracking import LOOKS

EASY = PromoteConfig(min_f1=0.0, margin=0.3, min_groups=5, confidence=0.6)

_names = itertools.count()


@pytest.fixture(scope="module", name="folder")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder, one database; each test has a registered model of its own."""
    return tmp_path_factory.mktemp("promoted")


@pytest.fixture(name="name")
def model_name() -> str:
    return f"model-{next(_names)}"


@pytest.fixture(autouse=True)
def no_looks(folder: Path) -> None:
    """All tests have one hold-out: each begins as though nothing had been judged on it."""
    forget_looks(folder)


def forget_looks(folder: Path) -> None:
    if (folder / "mlflow.db").exists() and (experiment := client(folder).get_experiment_by_name(LOOKS)):
        for run in client(folder).search_runs([experiment.experiment_id]):
            client(folder).delete_run(run.info.run_id)


def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'mlflow.db'}")


def new_evaluation(chain: Chain, folder: Path, key: str, wrong: int) -> Path:
    """The chain's evaluation with predictions of its hold-out that are wrong for some rows, under a key of its own."""
    copy = shutil.copytree(chain["evaluation"], folder / f"evaluation-{key}", dirs_exist_ok=True)
    table = read_table(copy, "predictions.parquet")
    held_out = table.index[(table["split"] == "test") & table["given_label"].notna()]
    truth = (table.loc[held_out, "given_label"] == "normal").to_numpy().astype(int)
    truth[:wrong] = 1 - truth[:wrong]
    said = pd.Series(list(np.eye(2)[truth] * 0.8 + 0.1), index=held_out)
    table["probabilities"] = table["probabilities"].where(~table.index.isin(held_out), said)
    write_table(copy, "predictions.parquet", table)
    metrics = read_json(copy / "metrics.json") | {"deployed_arm": "supervised"}
    write_json(copy / "metrics.json", metrics)
    write_json(copy / "artifact.json", read_json(copy / "artifact.json") | {"key": key})
    return copy


def decide(chain: Chain, folder: Path, config: PromoteConfig, evaluation: Path, output: str) -> Any:
    inputs = chain.inputs("catalog", "bundle")
    return promote(config, **inputs, evaluation=evaluation, output=folder / output)
