"""Addresses of objects. None holds a credential: addresses stand in configurations, artifacts, logs and errors."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(location: str) -> bool:
    """Whether a location is an address and no local path.

    >>> is_url("s3://bucket/archive.tar"), is_url("/data/archive.tar")
    (True, False)
    """
    return _URL.match(location) is not None


def is_remote(location: str) -> bool:
    """Whether a location is an address in a store; file:// is local.

    >>> is_remote("s3://bucket"), is_remote("file:///data")
    (True, False)
    """
    return is_url(location) and not location.lower().startswith("file://")


def local_path(location: str) -> Path:
    """Path of a local location.

    >>> local_path("file:///data/scans").as_posix()
    '/data/scans'
    """
    if not is_url(location):
        return Path(location)
    address = Address.parse(location)
    return Path("/", address.bucket, address.key)


def archive_name(location: str) -> str:
    """What an archive is called: the last part of its path or address."""
    return Address.parse(location).name if is_remote(location) else local_path(location).absolute().name


def check_no_credentials(location: str) -> str:
    """The location, if it is a local path or an address without anything secret.

    Raises:
        ValueError: The address holds a user or a query, where passwords, tokens and signatures stand. The message
            repeats neither.
    """
    if not is_url(location):
        return location
    parts = urlsplit(location)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "an address with a user or a query would be stored with every artifact, credentials and all: leave "
            "them out, and give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a machine's role"
        )
    return location


@dataclass(frozen=True)
class Address:
    """An address in its parts.

    Attributes:
        scheme: "s3", "file", "https", ..., in lower case.
        bucket: Bucket or host; empty for a local path.
        key: Path in the bucket without slashes around it; empty for all that is there.
    """

    scheme: str
    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Take an address apart.

        >>> Address.parse("s3://bucket/raw/2026/")
        Address(scheme='s3', bucket='bucket', key='raw/2026')

        Raises:
            ValueError: It is none, names no bucket, or holds a credential.
        """
        scheme, _, rest = check_no_credentials(url).partition("://")
        bucket, _, key = rest.partition("/")
        if not is_url(url) or (scheme.lower() == "s3" and not bucket):
            raise ValueError(f"{url!r} is no address; one looks like s3://bucket/prefix")
        return cls(scheme.lower(), bucket, key.strip("/"))

    @property
    def name(self) -> str:
        """Last part: what an archive is called."""
        return (self.key or self.bucket).rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"
