"""Where a bundle comes from: a folder, S3, MLflow's registry; whole or not at all, and fetched once."""

import shutil
from pathlib import Path

import pytest
from object_store import Bucket
from tiny_bundle import TinyNetwork, new_bundle

from scanloop.bundle.locate import _Remote, current, fetch_bundle
from scanloop.bundle.read import read_bundle
from scanloop.errors import BundleError, ConfigError, StorageError
from scanloop.storage.transfer import push
from scanloop.tracking import CHALLENGER, CHAMPION, Candidate, Registry


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("other"), TinyNetwork(seed=1))


@pytest.fixture
def store(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.proxy.url)
    return bucket


@pytest.fixture
def registry(tmp_path: Path, bundle: Path) -> str:
    """A local registry that holds a bundle as its champion; its tracking URI."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "metrics.json").write_text("{}")
    register(folder, "first", bundle, CHAMPION)
    return f"sqlite:///{folder / 'mlflow.db'}"


def register(folder: Path, key: str, path: Path, alias: str) -> None:
    candidate = Candidate(key, path, folder / "evaluation", {}, {})
    Registry.local(folder, "scanloop").register(candidate, "promoted", alias)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_is_used_where_it_lies_and_one_that_was_changed_is_refused(
    bundle: Path, other: Path, tmp_path: Path
) -> None:
    assert fetch_bundle(str(bundle), tmp_path / "cache") == bundle
    assert fetch_bundle(bundle.as_uri(), tmp_path / "cache") == bundle
    assert current(str(bundle)) == read_bundle(bundle).digest != current(str(other))
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "exemplars.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"exemplars\.npz"):
        fetch_bundle(str(broken), tmp_path / "cache")
    with pytest.raises(BundleError, match="no such bundle"):
        fetch_bundle(str(tmp_path / "nowhere"), tmp_path / "cache")
    with pytest.raises(BundleError, match="no bundle lies there"):
        current(str(tmp_path / "nowhere"))


def test_a_bundle_in_s3_is_fetched_once_and_another_in_its_place_is_noticed(
    store: Bucket, bundle: Path, other: Path, tmp_path: Path
) -> None:
    address, cache = f"s3://{store.name}/models/brain", tmp_path / "cache"
    push(bundle, store.store("models/brain"))
    path = fetch_bundle(address, cache)
    assert contents(path) == contents(bundle)
    assert path.name == current(address) == read_bundle(path).digest
    asked = len(store.proxy.seen)
    assert fetch_bundle(address, cache) == path
    assert len(store.proxy.seen) - asked <= 3  # the seal alone: looked up and read
    push(other, store.store("models/brain"))
    assert current(address) != path.name
    assert contents(fetch_bundle(address, cache)) == contents(other)
    assert sorted(one.name for one in cache.iterdir()) == sorted([path.name, current(address)])


def test_another_bundle_that_comes_while_one_is_fetched_is_not_taken_for_it(
    store: Bucket, bundle: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, digest = f"s3://{store.name}/brain", current(str(bundle))
    push(other, store.store("brain"))
    monkeypatch.setattr(_Remote, "current", lambda _: digest)  # what lay there when it was asked
    with pytest.raises(StorageError, match="fetch it again"):
        fetch_bundle(address, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_missing_or_damaged_in_s3_never_becomes_a_bundle(store: Bucket, bundle: Path, tmp_path: Path) -> None:
    address, cache = f"s3://{store.name}/brain", tmp_path / "cache"
    with pytest.raises(BundleError, match="no bundle lies there"):
        fetch_bundle(address, cache)
    push(bundle, store.store("brain"))
    store.direct.put_object(Bucket=store.name, Key="brain/exemplars.npz", Body=b"another file")
    with pytest.raises(StorageError, match=r"exemplars\.npz"):
        fetch_bundle(address, cache)
    store.direct.delete_object(Bucket=store.name, Key="brain/exemplars.npz")
    with pytest.raises(BundleError, match=r"exemplars\.npz is missing; push"):
        fetch_bundle(address, cache)
    store.direct.put_object(Bucket=store.name, Key="brain/bundle.json", Body=b'{"files": {"../../x": "0"}}')
    with pytest.raises(BundleError, match="no bundle of this version holds"):
        fetch_bundle(address, cache)
    assert list(cache.iterdir()) == []


def test_the_champion_of_a_registry_is_fetched_and_a_new_one_is_noticed(
    registry: str, bundle: Path, other: Path, tmp_path: Path
) -> None:
    cache, champion = tmp_path / "cache", "models:/scanloop@champion"
    path = fetch_bundle(champion, cache, registry)
    assert contents(path) == contents(bundle)
    assert path.name == current(champion, registry) == current("models:/scanloop/1", registry)
    register(tmp_path / "run", "second", other, CHALLENGER)
    assert current(champion, registry) == path.name
    register(tmp_path / "run", "second", other, CHAMPION)
    assert current(champion, registry) != path.name
    assert contents(fetch_bundle(champion, cache, registry)) == contents(other)
    assert fetch_bundle("models:/scanloop/1", cache, registry) == path
    assert sorted(one.name for one in cache.iterdir()) == sorted([path.name, current(champion, registry)])


def test_an_alias_a_registry_or_an_address_that_is_not_there_is_told(registry: str, tmp_path: Path) -> None:
    before = (tmp_path / "run" / "mlflow.db").stat().st_mtime_ns
    for address in ("models:/scanloop@challenger", "models:/other@champion", "models:/scanloop/7"):
        with pytest.raises(BundleError, match="no such model, alias or version"):
            current(address, registry)
    assert (tmp_path / "run" / "mlflow.db").stat().st_mtime_ns == before  # who asks leaves nothing behind
    for address in ("models:scanloop", "models:/scanloop@", "models:/scanloop/latest", "models:/a/b@c"):
        with pytest.raises(BundleError, match="looks like"):
            current(address, registry)
    with pytest.raises(BundleError, match="in which registry"):
        current("models:/scanloop@champion")
    with pytest.raises(BundleError, match="no registry at"):
        current("models:/scanloop@champion", f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(StorageError, match="registry cannot be asked"):
        current("models:/scanloop@champion", "http://127.0.0.1:9")
    with pytest.raises(ConfigError):
        current("gopher://host/bundle")
    assert not (tmp_path / "cache").exists()


def test_a_registry_that_lost_a_file_gives_no_bundle(registry: str, tmp_path: Path) -> None:
    (lost,) = (tmp_path / "run" / "mlartifacts").rglob("familiar.npz")
    lost.unlink()
    with pytest.raises(BundleError, match=r"familiar\.npz missing"):
        fetch_bundle("models:/scanloop@champion", tmp_path / "cache", registry)
    assert list((tmp_path / "cache").iterdir()) == []
