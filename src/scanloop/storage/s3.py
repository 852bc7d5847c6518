"""S3 through boto3. Its own retries are off: `Patience` also covers what breaks while a body is being read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scanloop.errors import ConfigError, ObjectGoneError, StorageError
from scanloop.storage.address import Address, check_no_credentials
from scanloop.storage.etag import agrees
from scanloop.storage.explain import explained
from scanloop.storage.patience import PassingError, Patience
from scanloop.storage.store import MOST_BYTES, Stored, whole

CONNECTIONS, PAGE_KEYS = 64, 1000


class S3Store:
    """Objects below a prefix of a bucket; credentials come from the environment, a profile or the machine's role."""

    def __init__(self, address: Address, endpoint_url: str | None, patience: Patience) -> None:
        self.address = address
        self.patience = patience
        self.client = new_client(endpoint_url)

    def objects(self) -> list[Stored]:
        """Objects below the prefix, sorted by key; the one with an empty key where the address is that of an object."""
        own = self.find("") if self.address.key else None
        if own is not None:
            return [own]
        prefix = f"{self.address.key}/" if self.address.key else ""
        found: list[Stored] = []
        token: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", None, Prefix=prefix, MaxKeys=PAGE_KEYS, **token)
            for entry in page.get("Contents", []):
                key = entry["Key"][len(prefix) :]
                if key and not key.endswith("/"):  # a folder's marker
                    found.append(Stored(key, entry["Size"], entry["ETag"]))
            if not page.get("IsTruncated"):
                return sorted(found)
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def find(self, key: str) -> Stored | None:
        """The object with this key, if there is one."""
        head = self.head(key)
        return None if head is None else Stored(key, head["ContentLength"], head["ETag"])

    def head(self, key: str) -> dict[str, Any] | None:
        """What the store says of an object, if there is one."""
        try:
            found: dict[str, Any] = self.call("head_object", key)
        except ObjectGoneError:
            return None
        return found

    def read(self, stored: Stored) -> bytes:
        """All bytes of an object, checked against the SHA-256 it was stored with, or its ETag where that is an MD5."""
        if stored.size > MOST_BYTES:
            raise StorageError(f"{self.name(stored.key)}: {stored.size} bytes; at most {MOST_BYTES} are read at once")

        def attempt() -> bytes:
            answer, payload = self._get(stored, {})
            if not agrees(whole(payload, stored.size), answer):
                raise PassingError("the bytes do not have the checksum that the store knows")
            return payload

        return self.patience.try_for(f"read {self.name(stored.key)}", attempt)

    def read_part(self, stored: Stored, offset: int, size: int) -> bytes:
        """Exactly these bytes of an object, of the version that was listed."""
        if size == 0:
            return b""
        last = offset + size - 1
        return self.patience.try_for(
            f"read {self.name(stored.key)}, bytes {offset} to {last}",
            lambda: whole(self._get(stored, {"Range": f"bytes={offset}-{last}"})[1], size),
        )

    def put(self, key: str, path: Path) -> None:
        """Make an object of a file, in one request or in parts; the store checks the MD5 of each."""
        from scanloop.storage.s3_upload import upload

        upload(self, key, path)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.call("delete_object", key)

    def name(self, key: str) -> str:
        """Address of an object, for messages."""
        return f"s3://{self.address.bucket}/{self.full_key(key)}"

    def full_key(self, key: str) -> str:
        """Key of an object in its bucket."""
        return "/".join(part for part in (self.address.key, key) if part)

    def call(self, operation: str, key: str | None, **arguments: Any) -> Any:
        """Answer to a request that carries no body and can be repeated."""
        subject = f"s3://{self.address.bucket}" if key is None else self.name(key)
        where = {} if key is None else {"Key": self.full_key(key)}
        call: Callable[..., Any] = getattr(self.client, operation)

        def attempt() -> Any:
            with explained(f"{operation.replace('_', ' ')} {subject}"):
                return call(Bucket=self.address.bucket, **where, **arguments)

        return self.patience.try_for(f"{operation.replace('_', ' ')} {subject}", attempt)

    def _get(self, stored: Stored, part: dict[str, str]) -> tuple[dict[str, Any], bytes]:
        same = {"IfMatch": stored.version} if stored.version else {}
        with explained(self.name(stored.key)):
            answer = self.client.get_object(
                Bucket=self.address.bucket, Key=self.full_key(stored.key), ChecksumMode="ENABLED", **same, **part
            )
            with answer["Body"] as body:
                if answer["ContentLength"] > MOST_BYTES:
                    raise PassingError(f"{answer['ContentLength']} bytes are offered; at most {MOST_BYTES} are read")
                return answer, body.read()


def new_client(endpoint_url: str | None) -> Any:
    """boto3 client for S3, bounded in time and without retries of its own.

    Raises:
        ConfigError: boto3 is missing, or the endpoint is no address or holds a credential.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ConfigError("s3:// needs boto3: pip install 'scanloop[compute]'") from error
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",  # older servers refuse trailing checksums; MD5 is sent instead
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    try:
        check_no_credentials(endpoint_url or "")
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config, region_name=_region())
    except (ValueError, BotoCoreError) as error:
        raise ConfigError(f"endpoint_url or AWS configuration: {error}") from None


def _region() -> str | None:
    import boto3

    return boto3.session.Session().region_name or "us-east-1"
