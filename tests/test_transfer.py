"""Folders to a store and back: whole or absent at both ends, whatever happens in between."""

import json
import random
from pathlib import Path

import pytest
from object_store import Bucket

from scanloop.errors import StorageError
from scanloop.storage import download as download_module
from scanloop.storage.download import download
from scanloop.storage.patience import Patience
from scanloop.storage.store import open_store
from scanloop.storage.transfer import MANIFEST, pull, push

FILES = {
    "artifact.json": b"{}",
    "shards/shard-000000.tar": random.Random(0).randbytes(300_000),
    "manifest/part-000000.parquet": b"rows",
    "empty.txt": b"",
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    for name, payload in {**FILES, ".lock": b"", ".scratch/key": b"secret"}.items():
        path = tmp_path / "catalog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
    return tmp_path / "catalog"


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_went_but_for_what_is_hidden(bucket: Bucket, artifact: Path, tmp_path: Path) -> None:
    pushed = push(artifact, bucket.store("run/catalog"))
    assert (pushed.files, pushed.bytes) == (4, sum(map(len, FILES.values())))
    assert pull(bucket.store("run/catalog"), tmp_path / "back") == pushed
    assert held(tmp_path / "back") == FILES
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_any_store_will_do(artifact: Path, tmp_path: Path) -> None:
    for url in (f"file://{tmp_path}/shelf/catalog", "memory://shelf/catalog"):
        push(artifact, open_store(url))
        pull(open_store(url), tmp_path / url[:4])
        assert held(tmp_path / url[:4]) == FILES


def test_the_manifest_is_put_last_and_without_it_nothing_can_be_pulled(
    bucket: Bucket, artifact: Path, tmp_path: Path
) -> None:
    bucket.proxy.plan("PUT", "part-000000", *["refuse_connection"] * 4)
    with pytest.raises(StorageError, match="part-000000"):
        push(artifact, bucket.store("catalog"))
    assert f"catalog/{MANIFEST}" not in bucket.names()
    with pytest.raises(StorageError, match="no whole folder lies there"):
        pull(bucket.store("catalog"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    push(artifact, bucket.store("catalog"))
    puts = [path for method, path, _ in bucket.proxy.seen if method == "PUT"]
    assert puts[-1].endswith(MANIFEST)
    assert sum("shard-000000" in path for path in puts) == 1, "what is there is not sent again"


def test_a_folder_pushed_over_another_cannot_be_pulled_in_between(
    bucket: Bucket, artifact: Path, tmp_path: Path
) -> None:
    push(artifact, bucket.store("catalog"))
    (artifact / "shards/shard-000000.tar").write_bytes(b"new")
    bucket.proxy.plan("PUT", "shard-000000", *["refuse_connection"] * 4)
    with pytest.raises(StorageError):
        push(artifact, bucket.store("catalog"))
    with pytest.raises(StorageError, match="no whole folder"):
        pull(bucket.store("catalog"), tmp_path / "back")
    push(artifact, bucket.store("catalog"))
    pull(bucket.store("catalog"), tmp_path / "back")
    assert held(tmp_path / "back") == FILES | {"shards/shard-000000.tar": b"new"}


@pytest.mark.parametrize("fault", ["slow_down", "reset", "cut", "refuse_connection"])
def test_a_pull_brings_the_same_bytes_whatever_befalls_it(
    bucket: Bucket, artifact: Path, tmp_path: Path, fault: str
) -> None:
    push(artifact, bucket.store("catalog"))
    bucket.proxy.plan("GET", "shard-000000", fault, fault)
    pull(bucket.store("catalog"), tmp_path / "back")
    assert held(tmp_path / "back") == FILES


def test_a_pull_that_dies_shows_nothing_and_goes_on_where_it_stood(
    bucket: Bucket, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "RANGE_BYTES", 100_000)
    push(artifact, bucket.store("catalog"))
    bucket.proxy.plan("GET", "shard-000000", "", "", *["cut"] * 4)
    with pytest.raises(StorageError, match="bytes 200000 to 299999"):
        pull(bucket.store("catalog"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    before = len(bucket.proxy.requests("GET", "shard-000000"))
    pull(bucket.store("catalog"), tmp_path / "back")
    assert held(tmp_path / "back") == FILES
    assert len(bucket.proxy.requests("GET", "shard-000000")) - before == 1, "the last range alone"


def test_an_object_that_was_changed_behind_the_manifest_is_refused(
    bucket: Bucket, artifact: Path, tmp_path: Path
) -> None:
    push(artifact, bucket.store("catalog"))
    bucket.direct.put_object(Bucket=bucket.name, Key="catalog/artifact.json", Body=b"[]")
    with pytest.raises(StorageError, match=r"artifact\.json: its SHA256 is not"):
        pull(bucket.store("catalog"), tmp_path / "back")
    bucket.direct.delete_object(Bucket=bucket.name, Key="catalog/artifact.json")
    with pytest.raises(StorageError, match=r"artifact\.json is missing; push the folder again"):
        pull(bucket.store("catalog"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "..\\outside", ".ssh/keys", ""])
def test_a_manifest_that_names_a_file_outside_of_the_folder_is_refused(
    bucket: Bucket, tmp_path: Path, name: str
) -> None:
    manifest = {"schema_version": 1, "files": {name: {"sha256": "0" * 64, "bytes": 1}}}
    bucket.direct.put_object(Bucket=bucket.name, Key=f"c/{MANIFEST}", Body=json.dumps(manifest).encode())
    with pytest.raises(StorageError, match="is damaged"):
        pull(bucket.store("c"), tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", [b"no json", b"[]", b'{"files": {"a": {}}}', b'{"files": {"a": {"sha256": 1}}}'])
def test_a_damaged_manifest_is_one_clear_error(bucket: Bucket, tmp_path: Path, payload: bytes) -> None:
    bucket.direct.put_object(Bucket=bucket.name, Key=f"c/{MANIFEST}", Body=payload)
    with pytest.raises(StorageError, match="is damaged"):
        pull(bucket.store("c"), tmp_path / "back")


def test_nothing_is_overwritten_and_nothing_empty_is_pushed(bucket: Bucket, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="exists; remove it"):
        pull(bucket.store("c"), artifact)
    with pytest.raises(StorageError, match="no such folder"):
        push(tmp_path / "none", bucket.store("c"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="holds no file"):
        push(tmp_path / "empty", bucket.store("c"))
    assert bucket.names() == []


def test_what_an_earlier_attempt_left_of_another_object_is_fetched_anew(bucket: Bucket, tmp_path: Path) -> None:
    import hashlib

    payload = random.Random(3).randbytes(1000)
    digest = hashlib.sha256(payload).hexdigest()
    bucket.put(a=payload)
    (stored,) = bucket.store("").objects()
    (tmp_path / f".a.{digest[:16]}.part").write_bytes(b"x" * 700)
    download(bucket.store(""), stored, tmp_path / "a", "sha256", digest)
    assert (tmp_path / "a").read_bytes() == payload
    with pytest.raises(StorageError, match="its MD5 is not"):
        download(bucket.store(""), stored, tmp_path / "b", "md5", "0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_patience_ends() -> None:
    with pytest.raises(StorageError):
        open_store("http://127.0.0.1:9/x", patience=Patience(attempts=2, sleep=lambda seconds: None)).find("")
