"""Where the server's bundles come from: a folder, a store, or the model that an alias in a registry names."""

from pathlib import Path

from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.locate import current, fetch_bundle
from scanloop.bundle.read import read_bundle
from serving.champion import Source
from serving.loaded import Loaded, Work


def source_of(
    address: str, tracking_uri: str | None, cache: Path, wanted: Wanted, work: Work, features: Path | None = None
) -> Source:
    """Bundles of an address.

    Args:
        address: Folder, s3://bucket/prefix, or models:/NAME@ALIAS.
        tracking_uri: MLflow's, for a model's address.
        cache: Folder for what is fetched.
        wanted: Engine, precision, threads.
        work: Batches and decoders.
        features: Folder of a feature repository, which is asked about the neighbours of an answer.

    Raises:
        ConfigError: There is no such repository, or Feast is not installed.
    """
    metadata = None
    if features is not None:
        from scanloop.features.online import OnlineMetadata  # Feast takes five seconds to import

        metadata = OnlineMetadata(features)
    return Source(
        lambda: current(address, tracking_uri),
        lambda: Loaded(read_bundle(fetch_bundle(address, cache, tracking_uri), wanted), work, metadata),
    )
