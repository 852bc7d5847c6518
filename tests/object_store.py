"""Fixtures: an S3 server in this process, and a bucket in it behind a proxy that can be told to misbehave."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from faulty_proxy import FaultyProxy, faulty

from scanloop.storage.address import Address
from scanloop.storage.patience import Patience
from scanloop.storage.s3 import S3Store

_NUMBERS = count()


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket.

    Attributes:
        name: Of the bucket.
        proxy: What clients of the tested code talk to.
        direct: boto3 client that talks to the server itself.
        waits: Seconds that the tested code wanted to wait, instead of waiting.
    """

    name: str
    proxy: FaultyProxy
    direct: Any
    waits: list[float]

    def store(self, prefix: str = "") -> S3Store:
        patience = Patience(attempts=4, sleep=self.waits.append)
        return S3Store(Address.parse(f"s3://{self.name}/{prefix}"), self.proxy.url, patience)

    def put(self, **objects: bytes) -> None:
        for key, payload in objects.items():
            self.direct.put_object(Bucket=self.name, Key=key.replace("__", "/"), Body=payload)

    def names(self) -> list[str]:
        return [one["Key"] for one in self.direct.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def bytes_of(self, key: str) -> bytes:
        payload: bytes = self.direct.get_object(Bucket=self.name, Key=key)["Body"].read()
        return payload


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unguessable-and-never-shown")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bucket(moto_url: str, credentials: None) -> Iterator[Bucket]:
    import boto3

    direct = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    name = f"bucket-{next(_NUMBERS):04d}"
    direct.create_bucket(Bucket=name)
    with faulty(moto_url) as proxy:
        yield Bucket(name, proxy, direct, [])
