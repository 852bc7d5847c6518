"""Where the server's bundles come from: a folder, a bucket, or the model that an alias in a registry names."""

from pathlib import Path

from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.read import read_bundle
from scanloop.errors import BundleError
from scanloop.provenance import file_digest
from serving.champion import Source
from serving.loaded import Loaded, Work


def source_of(address: str, tracking_uri: str | None, cache: Path, wanted: Wanted, work: Work) -> Source:
    """Bundles of an address.

    Args:
        address: Folder, s3://bucket/prefix, or models:/NAME@ALIAS.
        tracking_uri: MLflow server of a registry's models.
        cache: Folder for what is fetched.
        wanted: Engine, precision, threads.
        work: Batches and decoders.
    """
    folder = Path(address)

    def current() -> str:
        seal = folder / "bundle.json"
        if not seal.is_file():
            raise BundleError(f"{address}: no such bundle; copy it again, or run the step retrain, which writes it")
        return file_digest(seal)

    return Source(current, lambda: Loaded(read_bundle(folder, wanted), work))
