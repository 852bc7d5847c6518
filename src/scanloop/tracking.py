"""MLflow: a decided model is a version, each decision and each look at a hold-out a run; aliases name champions."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

CHAMPION, CHALLENGER = "champion", "challenger"
KEY_TAG, DECISION_TAG = "scanloop.key", "scanloop.decision"
WAS_CHAMPION_TAG = "scanloop.was_champion"
HOLDOUT_TAG, LOOK_TAG = "scanloop.holdout", "scanloop.look"
DIGEST_TAG = "scanloop.digest"
LOOKS = "scanloop-looks"
"""Experiment that counts the looks at each hold-out, whatever the models are called."""
MOST_RUNS = 10_000
"""Most runs that one search reads; far beyond any `max_looks`."""
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
        self._location = artifacts.absolute().as_uri() if artifacts else None

    @cached_property
    def _experiment(self) -> str:
        """Made when something is written: who only asks leaves nothing behind."""
        return self._experiment_of(self._name)

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
            cls(f"sqlite:///{unfinished}", name, folder / "mlartifacts")._experiment_of(name)
            unfinished.replace(database)
        return cls(f"sqlite:///{database}", name, folder / "mlartifacts")

    def champion(self) -> Any | None:
        """Model version under the champion's alias; None without one."""
        return self.version(CHAMPION)

    def version(self, alias: str | None, number: str | None = None) -> Any | None:
        """Model version under an alias, or with a number; None where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            if alias is not None:
                return self._client.get_model_version_by_alias(self._name, alias)
            return self._client.get_model_version(self._name, str(number))
        except MlflowException as error:
            if error.error_code not in NO_CHAMPION:
                raise  # a registry that cannot be asked is not one without a champion
            return None

    def fetch(self, version: Any, path: str, folder: Path) -> Path:
        """Local copy of a file that was logged with a version, for example "evaluation/predictions.parquet"."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self._client.download_artifacts(version.run_id, path, str(folder)))

    def former_champions(self, but: str) -> list[Any]:
        """Versions that were champion once and are it no more, oldest first, without those of one key."""
        now = self.champion()
        found = [
            version
            for version in self._versions()
            if (WAS_CHAMPION_TAG in version.tags or version.tags.get(DECISION_TAG) == "promoted")
            and version.tags.get(KEY_TAG) != but
            and (now is None or version.version != now.version)
        ]
        return sorted(found, key=lambda version: int(version.version))

    def look(self, holdout: str, key: str, most: int) -> int:
        """Number of this look at a hold-out, from 1: how many models it has judged, this one included.

        It is written down before looks are counted. So of two at the same time each sees itself, and the one that
        counts last sees both: a look may be counted as a later one, never as an earlier one, and no lock is needed. A
        model that was judged there before keeps its number. One look too many is not written down: nothing is judged.

        Args:
            holdout: Digest of the hold-out.
            key: What is judged.
            most: Looks that are allowed.
        """
        experiment = self._experiment_of(LOOKS)
        keys = self._looks(experiment, holdout)
        if key not in keys and len(keys) >= most:
            return len(keys) + 1
        if key not in keys:
            tags = {HOLDOUT_TAG: holdout, KEY_TAG: key}
            run = self._client.create_run(experiment, tags=tags, run_name=key[:12])
            self._client.set_terminated(run.info.run_id)
            keys = self._looks(experiment, holdout)
        run_id, number = keys[key]
        if number is None:
            number = len(keys)
            self._client.set_tag(run_id, LOOK_TAG, str(number))
        return number

    def log_decision(self, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float], folder: Path) -> None:
        """A run that holds one decision; done again with the same digest, nothing is added.

        Args:
            digest: Digest of the decision.
            tags: Facts in words.
            metrics: Figures.
            folder: Folder whose files are kept with it.
        """
        if self._runs(self._experiment, DIGEST_TAG, digest):
            return
        run = self._client.create_run(self._experiment, tags=dict(tags), run_name=f"decision-{digest[:12]}")
        for name, number in metrics.items():
            self._client.log_metric(run.info.run_id, name, number)
        self._client.log_artifacts(run.info.run_id, str(folder))
        self._client.set_tag(run.info.run_id, DIGEST_TAG, digest)  # last: what died before it is logged again
        self._client.set_terminated(run.info.run_id)

    def register(self, candidate: Candidate, decision: str, alias: str) -> None:
        """Log a candidate, register it, tag it with the last decision about it, and point an alias at it.

        Done again under the same key, no version is added.
        """
        version = self._version(candidate.key) or self._log(candidate)
        self._client.set_model_version_tag(self._name, version.version, DECISION_TAG, decision)
        if alias == CHAMPION:
            self._client.set_model_version_tag(self._name, version.version, WAS_CHAMPION_TAG, "true")
        self._client.set_registered_model_alias(self._name, alias, version.version)

    def _version(self, key: str) -> Any | None:
        return next((version for version in self._versions() if version.tags.get(KEY_TAG) == key), None)

    def _versions(self) -> list[Any]:
        found: list[Any] = list(self._client.search_model_versions(f"name = '{self._name}'", max_results=MOST_RUNS))
        return found

    def _looks(self, experiment: str, holdout: str) -> dict[str, tuple[str, int | None]]:
        """Run and number, where it has one yet, of each key that a hold-out judged; the first run of two."""
        found: dict[str, tuple[str, int | None]] = {}
        for run in self._runs(experiment, HOLDOUT_TAG, holdout):
            number = run.data.tags.get(LOOK_TAG)
            found.setdefault(run.data.tags[KEY_TAG], (run.info.run_id, int(number) if number else None))
        return found

    def _runs(self, experiment: str, tag: str, text: str) -> list[Any]:
        """Runs with a tag, in the order in which they began."""
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found: list[Any] = list(
            self._client.search_runs([experiment], f"tags.`{tag}` = '{text}'", max_results=MOST_RUNS, order_by=order)
        )
        return found

    def _experiment_of(self, name: str) -> str:
        """Id of the experiment; two that make it at the same time end in one."""
        from mlflow.exceptions import MlflowException

        if experiment := self._client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        try:
            return str(self._client.create_experiment(name, self._location))
        except MlflowException as error:
            made = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or made is None:
                raise
            return str(made.experiment_id)

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
