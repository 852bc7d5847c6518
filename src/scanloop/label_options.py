"""What the commands of `scanloop label` share: which store, under which configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from scanloop.config import LabelConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError
from scanloop.faults import listed

if TYPE_CHECKING:
    from scanloop.labelling.store import Store

StoreOption = Annotated[
    str | None, typer.Option("--store", help="sqlite:///FILE or postgresql://USER@HOST/NAME; also SCANLOOP_LABEL_STORE")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML of a run; its section 'label' counts")]


@contextmanager
def opened(store: str | None, config: LabelConfig, *, may_be_new: bool = False) -> Iterator["Store"]:
    """The label store that an option, the environment or the configuration names; it is there, or `may_be_new`."""
    from scanloop.labelling.address import store_address
    from scanloop.labelling.store import open_store

    found = open_store(store_address(store, config.store), may_be_new=may_be_new)
    try:
        yield found
    finally:
        found.engine.dispose()


def section(config: Path | None, **options: Any) -> LabelConfig:
    """Section `label` of a configuration, or its defaults, with the options that were given on top."""
    found = LabelConfig() if config is None else load_config(config).label
    values = found.model_dump() | {name: value for name, value in options.items() if value is not None}
    try:
        return LabelConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(listed("scanloop label", error)) from error
