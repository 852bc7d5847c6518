"""Tables of dated rows in YAML files: read whole, checked when they are read."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from scanloop.errors import ConfigError
from scanloop.faults import listed

Table = TypeVar("Table", bound=BaseModel)


def load_table(path: Path, model: type[Table]) -> Table:
    """Table in a YAML file.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds faults; the message lists all of them.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(listed(path, error)) from error
