"""MLflow: every promotion decision is a run, every decided model a version; aliases name champion and challenger."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAMPION, CHALLENGER = "champion", "challenger"
KEY_TAG, DECISION_TAG = "scanloop.key", "scanloop.decision"
NO_CHAMPION = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where the model, or the alias, is not there."""


@dataclass(frozen=True)
class Candidate:
    """A model to register.

    Attributes:
        key: What made it; registering the same key twice changes nothing.
        bundle: Its directory.
        evaluation: Directory of its metrics and predictions.
        params: Facts to log.
        metrics: Numbers to log.
    """

    key: str
    bundle: Path
    evaluation: Path
    params: Mapping[str, str]
    metrics: Mapping[str, float]


class Registry:
    """One registered model in an MLflow tracking server or database.

    Args:
        uri: MLflow tracking URI, for example "sqlite:////runs/demo/mlflow.db" or "https://mlflow.example".
        name: Name of the registered model, and of the experiment.
        artifacts: Folder for logged files where `uri` is a local database; None leaves it to the server.
    """

    def __init__(self, uri: str, name: str, artifacts: Path | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._name = name
        experiment = self._client.get_experiment_by_name(name)
        location = artifacts.absolute().as_uri() if artifacts else None
        self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(name, location)

    @classmethod
    def local(cls, folder: Path, name: str) -> "Registry":
        """Registry in a folder: `mlflow.db` beside `mlartifacts`.

        MLflow makes its tables in many transactions, and cannot go on with a database whose making was cut short; so it
        is made under another name first.
        """
        database = folder / "mlflow.db"
        if not database.exists():
            for stale in folder.glob(".mlflow.*.db"):
                stale.unlink()
            unfinished = folder / f".mlflow.{uuid.uuid4().hex}.db"
            cls(f"sqlite:///{unfinished}", name, folder / "mlartifacts")
            unfinished.replace(database)
        return cls(f"sqlite:///{database}", name, folder / "mlartifacts")

    def champion(self) -> Any | None:
        """Model version under the champion's alias; None without one."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(self._name, CHAMPION)
        except MlflowException as error:
            if error.error_code not in NO_CHAMPION:
                raise  # a registry that cannot be asked is not one without a champion
            return None

    def fetch(self, version: Any, path: str, folder: Path) -> Path:
        """Local copy of a file that was logged with a version, for example "evaluation/predictions.parquet"."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self._client.download_artifacts(version.run_id, path, str(folder)))

    def register(self, candidate: Candidate, decision: str, alias: str) -> None:
        """Log a candidate, register it, tag it with the last decision about it, and point an alias at it.

        Done again under the same key, no version is added.
        """
        version = self._version(candidate.key) or self._log(candidate)
        self._client.set_model_version_tag(self._name, version.version, DECISION_TAG, decision)
        self._client.set_registered_model_alias(self._name, alias, version.version)

    def _version(self, key: str) -> Any | None:
        found = self._client.search_model_versions(f"name = '{self._name}'")
        return next((version for version in found if version.tags.get(KEY_TAG) == key), None)

    def _log(self, candidate: Candidate) -> Any:
        run = self._client.create_run(self._experiment, run_name=candidate.key[:12])
        run_id = run.info.run_id
        for name, text in candidate.params.items():
            self._client.log_param(run_id, name, text)
        for name, number in candidate.metrics.items():
            self._client.log_metric(run_id, name, number)
        self._client.log_artifacts(run_id, str(candidate.bundle), "bundle")
        self._client.log_artifacts(run_id, str(candidate.evaluation), "evaluation")
        self._client.set_terminated(run_id)
        self._ensure_model()
        return self._client.create_model_version(
            self._name, f"{run.info.artifact_uri}/bundle", run_id, tags={KEY_TAG: candidate.key}
        )

    def _ensure_model(self) -> None:
        if not self._client.search_registered_models(f"name = '{self._name}'"):
            self._client.create_registered_model(self._name)
