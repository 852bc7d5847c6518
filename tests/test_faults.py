"""What is said of values that were refused: everything but a password."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from scanloop.config import PromoteConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError

LEAST = "ingest: {source: {kind: synthetic}}\n"
SECRETS = [
    "https://ann:w8-kO@mlflow.example",
    "https://ann:w8-/kO#@mlflow.example",
    "postgresql://ann:w8-kO@db.example/mlflow",
]
HARMLESS = [
    "https://mlflow.example:5000/path",
    "sqlite:////runs/ann@home/mlflow.db",
    "file:///runs/a@b",
    "databricks",
    None,
]


@pytest.mark.parametrize("uri", SECRETS)
def test_a_password_in_the_registrys_uri_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(LEAST + f"promote: {{tracking_uri: '{uri}'}}\n")
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as error:
        load_config(path)
    assert "promote.tracking_uri: " in str(error.value)
    assert "://***@" in str(error.value)
    assert "w8-" not in str(error.value)
    with pytest.raises(ValidationError) as raw:
        PromoteConfig.model_validate_json(f'{{"tracking_uri": "{uri}"}}')
    assert "w8-" not in str(raw.value)


@pytest.mark.parametrize("uri", HARMLESS)
def test_a_registrys_uri_without_a_password_is_taken(uri: str | None) -> None:
    assert PromoteConfig(tracking_uri=uri).tracking_uri == uri


def test_a_password_in_any_other_value_is_not_repeated_either(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(LEAST + "embed: {batch_size: 'https://ann:w8-kO@host/x'}\n")
    with pytest.raises(ConfigError, match=r"embed\.batch_size: .* \(given: 'https://\*\*\*@host/x'\)"):
        load_config(path)
