"""Where a bundle comes from: a folder, a store, or a registered version; fetched whole or not at all."""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scanloop.artifacts import KINDS
from scanloop.bundle.read import check_files
from scanloop.errors import BundleError, StorageError
from scanloop.storage.address import is_remote, local_path
from scanloop.storage.download import download
from scanloop.storage.store import Store, open_store

SEAL = "bundle.json"
MOST_SEAL_BYTES = 16 << 20
BEGUN = ".fetch-"
"""How a folder of the cache is called while it is fetched."""

_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[1-9]\d*))")


class Place(Protocol):
    """Where a bundle lies that must be fetched."""

    def current(self) -> str:
        """What changes when another bundle lies there, asked without fetching it; fit for the name of a folder."""

    def fetch(self, name: str, folder: Path) -> None:
        """Copy the files of the bundle that `current` called so into a folder."""


def fetch_bundle(address: str, cache: Path, tracking_uri: str | None = None) -> Path:
    """Directory of the bundle at an address, every file as its seal promises.

    Each bundle has its own folder in the cache, which appears by one rename when it is whole; what was fetched before
    is not fetched again. Several processes may share a cache.

    Args:
        address: A folder, which is used where it lies; "s3://bucket/prefix" or what else fsspec reaches; or
            "models:/NAME@ALIAS" or "models:/NAME/VERSION" in MLflow's registry.
        cache: Folder for what is fetched.
        tracking_uri: MLflow's, for a model's address.

    Raises:
        BundleError: No such bundle, alias or version; or a file is missing or not as promised.
        StorageError: The store or the registry does not answer, or refuses.
        ConfigError: The address is none, or a library is missing.
    """
    place = _place(address, tracking_uri)
    if isinstance(place, _Folder):
        check_files(place.path)
        return place.path
    folder = cache / place.current()
    if not folder.exists():
        _fetch(place, folder)
    check_files(folder)
    return folder


def current(address: str, tracking_uri: str | None = None) -> str:
    """What changes when another bundle lies at an address, by one small request.

    Args:
        address: As of `fetch_bundle`.
        tracking_uri: MLflow's, for a model's address.

    Returns:
        The digest of the bundle's seal; of a model its version.

    Raises:
        BundleError: No such bundle, alias or version.
        StorageError: The store or the registry does not answer, or refuses.
    """
    return _place(address, tracking_uri).current()


def _place(address: str, tracking_uri: str | None) -> "Place | _Folder":
    if address.startswith("models:"):
        found = _MODEL.fullmatch(address)
        if found is None:
            raise BundleError(f"{address}: a model's address looks like models:/NAME@champion or models:/NAME/3")
        if not tracking_uri:
            raise BundleError(f"{address}: say in which registry, for example sqlite:////runs/demo/mlflow.db")
        return _Model(address, tracking_uri, found["name"], found["alias"], found["version"])
    return _Remote(address, open_store(address)) if is_remote(address) else _Folder(local_path(address))


def _fetch(place: Place, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun = folder.with_name(f"{BEGUN}{uuid.uuid4().hex}")
    begun.mkdir()
    try:
        place.fetch(folder.name, begun)
        check_files(begun)
        try:
            begun.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster, with the same bytes
                raise
    finally:
        shutil.rmtree(begun, ignore_errors=True)


@dataclass(frozen=True)
class _Folder:
    """A local folder."""

    path: Path

    def current(self) -> str:
        if not (self.path / SEAL).is_file():
            raise BundleError(f"{self.path}: no bundle lies there; run the step retrain, which writes one")
        return hashlib.sha256((self.path / SEAL).read_bytes()).hexdigest()


@dataclass(frozen=True)
class _Remote:
    """Objects below an address; the seal says which, and what their digests are."""

    address: str
    store: Store

    def current(self) -> str:
        return hashlib.sha256(self._seal()).hexdigest()

    def fetch(self, name: str, folder: Path) -> None:
        payload = self._seal()
        if hashlib.sha256(payload).hexdigest() != name:
            raise StorageError(f"{self.address}: another bundle came while one was fetched; fetch it again")
        for file, digest in _promised(payload, self.address).items():
            stored = self.store.find(file)
            if stored is None:
                raise BundleError(f"{self.address}/{file} is missing; push the bundle again")
            download(self.store, stored, folder / file, "sha256", digest)
        (folder / SEAL).write_bytes(payload)

    def _seal(self) -> bytes:
        stored = self.store.find(SEAL)
        if stored is None:
            raise BundleError(f"{self.address}: no bundle lies there ({SEAL} is missing); push one, or correct this")
        if stored.size > MOST_SEAL_BYTES:
            raise BundleError(f"{self.address}/{SEAL}: {stored.size} bytes are no seal; push the bundle again")
        return self.store.read(stored)


@dataclass(frozen=True)
class _Model:
    """A version in MLflow's registry, by number or by alias."""

    address: str
    tracking_uri: str
    name: str
    alias: str | None
    version: str | None

    def current(self) -> str:
        return self._called(self._found())

    def fetch(self, name: str, folder: Path) -> None:
        found = self._found()
        if self._called(found) != name:
            raise StorageError(f"{self.address}: the alias moved on while its bundle was fetched; fetch it again")
        beside = folder.with_name(f"{folder.name}.mlflow")
        try:
            got = self._asked(lambda: self._registry().fetch(found, "bundle", beside))
            for path in got.iterdir():
                path.rename(folder / path.name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _called(self, found: Any) -> str:
        """Number of the version, and what makes it that of this registry alone."""
        where = hashlib.sha256(f"{self.tracking_uri} {self.name} {found.run_id}".encode()).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', self.name)[:64]}-{found.version}-{where[:16]}"

    def _found(self) -> Any:
        found = self._asked(lambda: self._registry().version(self.alias, self.version))
        if found is None:
            raise BundleError(f"{self.address}: the registry has no such model, alias or version; promote one first")
        return found

    def _registry(self) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seven, by default, are minutes
        from scanloop.tracking import Registry

        path = self.tracking_uri.removeprefix("sqlite:///")
        if path != self.tracking_uri and not Path(path).is_file():
            raise BundleError(f"{self.address}: there is no registry at {path}; give the run's mlflow.db")
        return Registry(self.tracking_uri, self.name)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return ask()
        except (MlflowException, OSError) as error:
            reason = str(error).split("\n")[0][:200]
            raise StorageError(
                f"{self.address}: the registry cannot be asked ({reason}); check its address and the network"
            ) from error


def _promised(payload: bytes, address: str) -> dict[str, str]:
    """Digest of each file that a seal names; no name leads out of the folder."""
    try:
        files: dict[str, str] = json.loads(payload)["files"]
        names = set(files)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{address}/{SEAL} is damaged ({error!r}); push the bundle again") from error
    if unknown := sorted(names - set(KINDS["bundle"])):
        raise BundleError(f"{address}/{SEAL} names {', '.join(unknown)}, which no bundle of this version holds")
    return files
