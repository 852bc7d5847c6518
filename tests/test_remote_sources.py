"""Archives at an address: the same images as from a folder, listed first and read later, ahead of the consumer."""

import io
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from object_store import Bucket
from test_ingest import file_bytes
from test_readers import PNG, TREE, folder, from_folder, tar

from scanloop.archive.ahead import fetch_ahead
from scanloop.archive.readers import RawImage, read
from scanloop.archive.readers.files import list_files
from scanloop.config import FolderSource, IngestConfig, NpzSource
from scanloop.config_file import load_config
from scanloop.errors import ArchiveError, ConfigError, ImageError, StorageError
from scanloop.storage.patience import Patience
from scanloop.storage.ranges import RangeFile


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Patience, "_wait", lambda self, number, asked: 0.0)


def told(images: list[RawImage]) -> list[tuple[str, str | None, str | None, object]]:
    return [(raw.uri, raw.label, raw.patient_id, raw.payload) for raw in images]


def test_a_prefix_a_folder_and_a_tar_in_a_store_hold_the_same_images(bucket: Bucket, tmp_path: Path) -> None:
    for name, payload in TREE.items():
        bucket.direct.put_object(Bucket=bucket.name, Key=f"raw/archive/{name}", Body=payload)
    packed = tar(tmp_path / "archive.tar")
    bucket.direct.put_object(Bucket=bucket.name, Key="archive.tar", Body=packed.read_bytes())
    local = told(from_folder(folder(tmp_path / "archive"), patient_pattern=r"(p\d)_"))
    options = {"patient_pattern": r"(p\d)_", "endpoint_url": bucket.proxy.url}
    assert told(from_folder(f"s3://{bucket.name}/raw/archive", **options)) == local
    in_tar = told(from_folder(f"s3://{bucket.name}/archive.tar", **options))
    assert [(uri.replace("archive.tar/", "archive/"), *rest) for uri, *rest in in_tar] == local
    assert told(from_folder(f"file://{tmp_path}/archive", patient_pattern=r"(p\d)_")) == local


def test_any_store_that_fsspec_knows_is_a_source(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name, payload in TREE.items():
        memory.pipe(f"/box/archive/{name}", payload)
    memory.pipe("/box/archive.tar", tar(tmp_path / "archive.tar").read_bytes())
    local = told(from_folder(folder(tmp_path / "archive")))
    assert told(from_folder("memory://box/archive")) == local
    assert [row[3] for row in told(from_folder("memory://box/archive.tar"))] == [row[3] for row in local]
    assert all(file.version for file in list_files("memory://box/archive"))
    memory.rm("/box", recursive=True)


def test_listing_reads_no_object_and_a_version_changes_with_its_object_alone(bucket: Bucket) -> None:
    bucket.put(set__labelled__x__1=b"one", set__labelled__x__2=b"two")

    def versions() -> dict[str, str | None]:
        source = FolderSource(deidentify=False, path=f"s3://{bucket.name}/set", endpoint_url=bucket.proxy.url)
        return {raw.uri: raw.version for raw in read(IngestConfig(source=source))}

    before = versions()
    bucket.put(set__labelled__x__2=b"TWO")
    after = versions()
    assert {uri for uri in before if before[uri] != after[uri]} == {"set/labelled/x/2"}
    assert bucket.proxy.requests("GET", "labelled/x") == [], "nothing was read"


def test_a_version_on_disk_changes_with_its_file_alone(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", {"labelled/x/1.png": PNG, "labelled/x/2.png": PNG})
    before = {file.inside: file.version for file in list_files(root)}
    (root / "labelled/x/2.png").write_bytes(PNG + b"more")
    after = {file.inside: file.version for file in list_files(root)}
    assert [name for name in before if before[name] != after[name]] == ["labelled/x/2.png"]


def test_an_object_that_went_is_quarantined_and_a_server_that_fails_stops_the_run(
    bucket: Bucket, no_waits: None
) -> None:
    bucket.put(labelled__x__1=PNG, labelled__x__2=PNG + b"2")
    source = FolderSource(deidentify=False, path=f"s3://{bucket.name}", endpoint_url=bucket.proxy.url)
    images = list(read(IngestConfig(source=source)))
    bucket.direct.delete_object(Bucket=bucket.name, Key="labelled/x/1")
    fault = images[0].loaded().fault
    assert isinstance(fault, ImageError)
    assert fault.reason == "unreadable"
    bucket.proxy.plan("GET", "labelled/x/2", *["slow_down"] * 9)
    with pytest.raises(StorageError, match="503 SlowDown"):
        list(fetch_ahead(images))


def test_an_empty_address_and_a_broken_tar_say_what_to_do(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(other=b"x")
    with pytest.raises(ArchiveError, match=r"nothing is stored there; set ingest\.source\.path"):
        from_folder(f"s3://{bucket.name}/none", endpoint_url=bucket.proxy.url)
    cut = tar(tmp_path / "cut.tar", {"labelled/a/1.png": bytes(90_000)}).read_bytes()[:50_000]
    bucket.direct.put_object(Bucket=bucket.name, Key="cut.tar", Body=cut)
    with pytest.raises(ArchiveError, match="not a whole, uncompressed tar"):
        from_folder(f"s3://{bucket.name}/cut.tar", endpoint_url=bucket.proxy.url)


def test_a_tar_of_large_members_is_indexed_by_reading_a_small_part_of_it(bucket: Bucket, tmp_path: Path) -> None:
    large = {f"labelled/a/{number}.bin": bytes(3 << 20) for number in range(6)}
    small = {f"labelled/a/{number:04d}.bin": bytes(2_000) for number in range(3_000)}
    for name, tree in (("large", large), ("small", small)):
        path = tar(tmp_path / f"{name}.tar", tree)
        bucket.direct.put_object(Bucket=bucket.name, Key=f"{name}.tar", Body=path.read_bytes())
        files = list_files(f"s3://{bucket.name}/{name}.tar", bucket.proxy.url)
        with tarfile.open(path) as opened:
            members = {member.name.removeprefix("./"): member for member in opened.getmembers()}
        assert {file.inside: (file.offset, file.size) for file in files} == {
            inside: (member.offset_data, member.size) for inside, member in members.items()
        }
    assert len(bucket.proxy.requests("GET", "/large.tar")) <= 8, "a request for each header and the end"
    assert len(bucket.proxy.requests("GET", "/small.tar")) <= 8, "ever larger requests"


def test_a_range_file_reads_as_the_file_itself(bucket: Bucket) -> None:
    payload = np.random.default_rng(0).bytes(700_000)
    bucket.put(a=payload)
    store = bucket.store()
    (stored,) = store.objects()
    remote, local = RangeFile(store, stored), io.BytesIO(payload)
    generator = np.random.default_rng(1)
    for _ in range(60):
        place, size = int(generator.integers(0, 710_000)), int(generator.integers(0, 150_000))
        assert remote.seek(place) == local.seek(place)
        assert remote.read(size) == local.read(size)
        assert remote.tell() == min(local.tell(), max(place, 700_000)) or remote.tell() == local.tell()
    assert remote.seek(-5, io.SEEK_END) == local.seek(-5, io.SEEK_END)
    assert remote.read() == local.read()


def test_a_catalog_of_a_store_behind_a_bad_network_is_that_of_the_folder(
    bucket: Bucket, tmp_path: Path, no_waits: None
) -> None:
    from scanloop.archive.decode import encode_png
    from scanloop.steps.ingest import ingest

    generator = np.random.default_rng(0)
    tree = {
        f"labelled/{name}/{number}.png": encode_png(generator.integers(0, 255, (32, 32), np.uint8))
        for name in ("a", "b")
        for number in range(20)
    }
    root = folder(tmp_path / "ward", tree)
    for name, payload in tree.items():
        bucket.direct.put_object(Bucket=bucket.name, Key=f"ward/{name}", Body=payload)
    for number, fault in enumerate(("slow_down", "reset", "cut", "flip", "refuse_connection", "flip", "reset")):
        bucket.proxy.plan("GET", f"/{number}.png", fault, fault)
    source = FolderSource(deidentify=False, path=f"s3://{bucket.name}/ward", endpoint_url=bucket.proxy.url)
    ingest(IngestConfig(source=source), output=tmp_path / "remote")
    ingest(IngestConfig(source=FolderSource(deidentify=False, path=str(root))), output=tmp_path / "local")
    remote, local = file_bytes(tmp_path / "remote"), file_bytes(tmp_path / "local")
    exempt = {"artifact.json", "run.json"}
    assert {name: one for name, one in remote.items() if name not in exempt} == {
        name: one for name, one in local.items() if name not in exempt
    }
    assert sum(bool(fault) for fault in bucket.proxy.requests("GET", ".png")) == 14


def test_a_catalog_is_found_again_until_something_in_the_store_changes(bucket: Bucket, tmp_path: Path) -> None:
    from scanloop.archive.decode import encode_png
    from scanloop.freshness import all_fresh
    from scanloop.steps.ingest import ingest

    generator = np.random.default_rng(0)

    def put(name: str) -> None:
        payload = encode_png(generator.integers(0, 255, (16, 16), np.uint8))
        bucket.direct.put_object(Bucket=bucket.name, Key=f"labelled/{name}.png", Body=payload)

    for name in ("a/1", "a/2", "b/1", "b/2"):
        put(name)
    source = FolderSource(path=f"s3://{bucket.name}", endpoint_url=bucket.proxy.url, deidentify=False)
    config = IngestConfig(source=source)
    first = ingest(config, output=tmp_path / "catalog")
    read_once = len(bucket.proxy.requests("GET", ".png"))
    assert ingest(config, output=tmp_path / "catalog") == first
    assert len(bucket.proxy.requests("GET", ".png")) == read_once == 4
    put("b/2")
    assert ingest(config, output=tmp_path / "catalog").data_digest != first.data_digest
    assert all_fresh(tmp_path, ["catalog"]), "the listing tells that it is"
    put("b/2")
    assert not all_fresh(tmp_path, ["catalog"])


def test_an_npz_is_read_from_an_address(bucket: Bucket, tmp_path: Path) -> None:
    from test_readers import arrays

    np.savez(tmp_path / "set.npz", **arrays())
    bucket.put(**{"set.npz": (tmp_path / "set.npz").read_bytes()})
    remote = NpzSource(path=f"s3://{bucket.name}/set.npz", endpoint_url=bucket.proxy.url)
    local = NpzSource(path=str(tmp_path / "set.npz"))
    one, two = (list(read(IngestConfig(source=source))) for source in (remote, local))
    assert [(raw.uri, raw.label) for raw in one] == [(raw.uri, raw.label) for raw in two]
    assert all(np.array_equal(left.payload, right.payload) for left, right in zip(one, two, strict=True))


def test_a_configuration_with_a_credential_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for given in (
        "path: 's3://key:w8-kO@bucket/a'",
        "path: 's3://bucket/a?X-Amz-Signature=w8-kO'",
        "path: s3://b, endpoint_url: 'https://ann:w8-kO@host'",
    ):
        path.write_text(f"ingest: {{source: {{kind: folder, {given}}}}}\n")
        with pytest.raises(ConfigError, match="leave them out") as error:
            load_config(path)
        assert "w8-kO" not in str(error.value)
