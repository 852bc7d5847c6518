"""A run's configuration as a YAML file: read once, with overrides on top, all faults in one message."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from scanloop.config import RunConfig
from scanloop.errors import ConfigError
from scanloop.faults import listed


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Configuration in a YAML file, with dotted overrides such as "pretrain.epochs=3" on top.

    `${oc.env:NAME,default}` in a value reads the environment. The run's seed becomes the seed of each section
    that gives none of its own.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds faults; the message lists all of them.
    """
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{path}: the top level must be a mapping of sections, for example 'ingest: ...'")
        tree = OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides)))
        values: Any = OmegaConf.to_container(tree, resolve=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; the examples are in configs/") from error
    except (OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: not a readable configuration: {error}") from error
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(listed(path, error)) from error
