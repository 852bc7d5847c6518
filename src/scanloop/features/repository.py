"""A Feast repository: its settings, its definitions, and how it is opened."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from scanloop.artifacts import write_bytes
from scanloop.errors import ConfigError
from scanloop.features.views import ENTITY, TIME, VIEWS, folder_of

SETTINGS, LOOKUP = "feature_store.yaml", "lookup"
DEFAULT_SETTINGS = """\
# Feast's settings; docs/features.md says how the online store is PostgreSQL.
project: scanloop
provider: local
registry: registry.db
offline_store:
  type: dask
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""
INSTALL = "pip install 'scanloop[features]'"


def apply(repository: Path) -> list[str]:
    """Write the settings where there are none, and the definitions into the registry; names of the views.

    Raises:
        ConfigError: Feast is not installed or refuses the settings.
    """
    if not (repository / SETTINGS).exists():
        write_bytes(repository / SETTINGS, DEFAULT_SETTINGS.encode())
    for view in VIEWS:
        folder_of(repository, view).mkdir(parents=True, exist_ok=True)
    store = _open(repository)
    store.apply(_definitions())
    return list(VIEWS)


def open_repository(repository: Path) -> Any:
    """Feast's store of a repository that `apply` made; importing Feast takes five seconds.

    Raises:
        ConfigError: There is none, Feast is not installed or refuses the settings, or the registry holds code.
    """
    if not (repository / SETTINGS).is_file():
        raise ConfigError(f"{repository}: no feature repository; scanloop features apply --repo {repository} makes one")
    store = _open(repository)
    if not store.list_feature_services():
        raise ConfigError(f"{repository}: its registry is empty; run scanloop features apply --repo {repository}")
    return store


def _open(repository: Path) -> Any:
    try:
        from feast import FeatureStore
        from feast.repo_config import load_repo_config
    except ImportError as error:
        raise ConfigError(f"Feast is not installed ({error}): {INSTALL}") from error
    file = repository / SETTINGS
    try:
        config = load_repo_config(repository.absolute(), file.absolute())
        _ = config.online_store, config.offline_store  # Feast reads these when they are first used
    except Exception as error:  # of a dozen kinds, and their texts repeat the settings with what is secret in them
        raise ConfigError(
            f"{file}: Feast refuses the settings ({type(error).__name__}); docs/features.md shows both kinds of online "
            "store, and PostgreSQL needs 'feast[postgres]'"
        ) from error
    _refuse_code(repository, config.registry)
    return FeatureStore(repo_path=str(repository.absolute()), config=config)


def _refuse_code(repository: Path, registry: Any) -> None:
    """Return if a registry in a file holds definitions alone: Feast would unpickle functions that stand in it."""
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf.message import DecodeError

    path = repository / str(getattr(registry, "path", registry))
    if not path.is_file():
        return
    found = Registry()
    try:
        found.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ConfigError(f"{path} is no registry of Feast; remove it and run scanloop features apply") from error
    code = [
        *found.on_demand_feature_views,
        *found.stream_feature_views,
        *found.saved_datasets,
        *found.validation_references,
    ]
    if code or any(one.spec.HasField("feature_transformation") for one in found.feature_views):
        raise ConfigError(
            f"{path} holds functions, which scanloop never writes; remove it and run scanloop features apply"
        )


def _definitions() -> list[Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Bool, Float64, Int64, String

    types = {pa.string(): String, pa.int64(): Int64, pa.float64(): Float64, pa.bool_(): Bool}
    slice_entity = Entity(name="slice", join_keys=[ENTITY], value_type=ValueType.STRING)
    views = [
        FeatureView(
            name=view,
            entities=[slice_entity],
            ttl=timedelta(0),  # a fact holds until a later one
            schema=[Field(name=ENTITY, dtype=String), *(Field(name=name, dtype=types[kind]) for name, kind in columns)],
            source=FileSource(name=f"{view}_files", path=f"offline/{view}", timestamp_field=TIME),
        )
        for view, columns in VIEWS.items()
    ]
    return [slice_entity, *views, FeatureService(name=LOOKUP, features=views)]
