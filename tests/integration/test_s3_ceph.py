"""The same code against a real S3 server, Ceph's gateway, which this test starts and ends."""

import os
import random
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_proxy import faulty
from test_cli import invoke
from test_ingest import file_bytes

from scanloop.archive.decode import encode_png
from scanloop.config import FolderSource, IngestConfig
from scanloop.errors import StorageError
from scanloop.steps.ingest import ingest
from scanloop.storage.address import Address
from scanloop.storage.patience import Patience
from scanloop.storage.s3 import S3Store
from scanloop.storage.transfer import pull, push

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).with_name("ceph.sh")
PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
LEAST = "ingest: {source: {kind: synthetic}}\n"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Address, access key and secret key of a running gateway."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"Ceph is not installed ({', '.join(missing)} missing); {SCRIPT.name} says how to install it")
    if os.geteuid() != 0:
        pytest.skip("Ceph's daemons are started as root")
    folder = tmp_path_factory.mktemp("ceph")
    port, access, secret = free_port(), secrets.token_hex(10), secrets.token_hex(20)
    done = subprocess.run(
        [str(SCRIPT), "up", str(folder), str(free_port()), str(port), access, secret],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=180, check=False,
    )  # fmt: skip
    try:
        assert done.returncode == 0, (folder / "up.out").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}", access, secret
    finally:
        subprocess.run([str(SCRIPT), "down", str(folder)], timeout=60, check=True)


@pytest.fixture
def url(server: tuple[str, str, str], credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    address, access, secret = server
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    return address


@pytest.fixture
def direct(url: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")


@pytest.fixture
def name(direct: Any) -> str:
    bucket = f"bucket-{secrets.token_hex(6)}"
    direct.create_bucket(Bucket=bucket)
    return bucket


def store(url: str, name: str, prefix: str = "") -> S3Store:
    return S3Store(Address.parse(f"s3://{name}/{prefix}"), url, Patience(sleep=lambda seconds: None))


def test_a_wrong_secret_is_one_clear_error_and_is_not_tried_again(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(url) as proxy:
        for variable, words in (
            ("AWS_SECRET_ACCESS_KEY", "the store refuses the secret key: check AWS_SECRET_ACCESS_KEY"),
            ("AWS_ACCESS_KEY_ID", "the store does not know the access key: check AWS_ACCESS_KEY_ID"),
        ):
            with monkeypatch.context() as patch:
                patch.setenv(variable, "wrong-and-never-shown")
                before = len(proxy.seen)
                with pytest.raises(StorageError, match=words) as error:
                    S3Store(Address.parse(f"s3://{name}"), url, Patience()).objects()
                assert "never-shown" not in str(error.value)
                assert len(proxy.seen) - before <= 1


def test_a_bucket_is_prepared_and_the_second_time_nothing_changes(
    url: str, name: str, direct: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run.yaml"
    target = ("storage", "apply", "--bucket", f"s3://{name}", "--endpoint-url", url, "--config", str(run))
    run.write_text(LEAST)
    refused = invoke(*target)
    assert isinstance(refused.exception, StorageError)
    assert "set storage.block_public_acls to false" in str(refused.exception)
    direct.put_object(Bucket=name, Key="still-writable", Body=b"")
    run.write_text(LEAST + "storage: {block_public_acls: false}\n")
    first, second = invoke(*target), invoke(*target)
    assert first.exit_code == second.exit_code == 0, (first.exception, second.exception)
    assert "changed" in first.output
    assert "changed" not in second.output
    assert direct.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    found = {rule["ID"]: rule for rule in direct.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]}
    assert found["scanloop-multipart"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert found["scanloop-noncurrent"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert found["scanloop-scratch"]["Expiration"]["Days"] == 14
    assert found["scanloop-raw"]["Transitions"][0]["Days"] == 30


def test_an_overwritten_object_of_a_versioned_bucket_can_be_had_back(
    url: str, name: str, direct: Any, tmp_path: Path
) -> None:
    direct.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for text in (b"one", b"two"):
        (tmp_path / "a").write_bytes(text)
        store(url, name).put("a", tmp_path / "a")
    versions = direct.list_object_versions(Bucket=name, Prefix="a")["Versions"]
    held = {
        one["IsLatest"]: direct.get_object(Bucket=name, Key="a", VersionId=one["VersionId"])["Body"].read()
        for one in versions
    }
    assert held == {True: b"two", False: b"one"}


def test_64_mb_go_in_parts_come_back_and_go_on_after_a_death(url: str, name: str, direct: Any, tmp_path: Path) -> None:
    payload = random.Random(0).randbytes(64 << 20)
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.bin").write_bytes(payload)
    with faulty(url) as proxy:
        proxy.plan("PUT", "partNumber=5", *["refuse_connection"] * 7)
        with pytest.raises(StorageError, match="part 5"):
            push(folder, store(proxy.url, name, "b"))
        assert "Contents" not in direct.list_objects_v2(Bucket=name), "no half object is to be seen"
        (begun,) = direct.list_multipart_uploads(Bucket=name)["Uploads"]
        there = len(direct.list_parts(Bucket=name, Key=begun["Key"], UploadId=begun["UploadId"]).get("Parts", []))
        before = len(proxy.requests("PUT", "partNumber"))
        push(folder, store(proxy.url, name, "b"))
        assert len(proxy.requests("PUT", "partNumber")) - before == 8 - there
        proxy.plan("GET", "model.bin", "", "cut", "reset")
        pull(store(proxy.url, name, "b"), tmp_path / "back")
    assert (tmp_path / "back" / "model.bin").read_bytes() == payload
    assert direct.head_object(Bucket=name, Key="b/model.bin")["ETag"].endswith('-8"')
    assert "Uploads" not in direct.list_multipart_uploads(Bucket=name)


def test_bytes_that_were_damaged_on_their_way_are_refused_by_the_server(
    url: str, name: str, direct: Any, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(5000))
    with faulty(url) as proxy:
        proxy.plan("PUT", "/a", "flip_request", "flip_request")
        try:
            store(proxy.url, name).put("a", tmp_path / "a")
        except StorageError as error:  # a signed body that does not fit its signature
            assert "refused (" in str(error)  # noqa: PT017  either outcome is right; a wrong object is not
            assert "Contents" not in direct.list_objects_v2(Bucket=name)
        else:
            assert direct.get_object(Bucket=name, Key="a")["Body"].read() == bytes(5000)


def test_a_catalog_of_the_store_is_that_of_the_folder(url: str, name: str, direct: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        for number in range(20):
            path = tmp_path / "ward" / "labelled" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(generator.integers(0, 255, (32, 32), np.uint8)))
            direct.upload_file(str(path), name, path.relative_to(tmp_path).as_posix())
    source = FolderSource(deidentify=False, path=f"s3://{name}/ward", endpoint_url=url)
    ingest(IngestConfig(source=source), output=tmp_path / "remote")
    ingest(IngestConfig(source=FolderSource(deidentify=False, path=str(tmp_path / "ward"))), output=tmp_path / "local")
    remote, local = file_bytes(tmp_path / "remote"), file_bytes(tmp_path / "local")
    assert {key: one for key, one in remote.items() if key not in {"artifact.json", "run.json"}} == {
        key: one for key, one in local.items() if key not in {"artifact.json", "run.json"}
    }
