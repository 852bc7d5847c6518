"""ETags as S3 computes them: the MD5 of an object, or the MD5 of its parts' MD5s and their number.

MD5 finds what was damaged on its way. It guards against no attacker: manifests hold SHA-256.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PART_BYTES = 8 << 20
MOST_PARTS = 10_000
"""Of one upload, by S3's rules; parts of larger files grow."""
METADATA = "part-bytes"
"""Metadata of an object in parts: the size of each but the last, so that its ETag can be computed again."""
_PLAIN = re.compile(r"[0-9a-f]{32}")
_JOINED = re.compile(r"[0-9a-f]{32}-\d+")


def part_bytes(size: int) -> int:
    """Bytes of each part of an object of this size, but the last.

    >>> part_bytes(100) == PART_BYTES, part_bytes(PART_BYTES * MOST_PARTS + 1) - PART_BYTES
    (True, 1)
    """
    return max(PART_BYTES, -(-size // MOST_PARTS))


def md5(payload: bytes) -> bytes:
    """MD5 of bytes, 16 bytes."""
    return hashlib.md5(payload, usedforsecurity=False).digest()


def joined(md5s: list[bytes]) -> str:
    """ETag, without quotes, of an object in parts with these MD5s."""
    return f"{md5(b''.join(md5s)).hex()}-{len(md5s)}"


def etag_of_file(path: Path) -> str:
    """ETag, without quotes, that an object of a file gets from `s3_upload`."""
    size = path.stat().st_size
    step = part_bytes(size)
    with path.open("rb") as file:
        if size <= step:
            return md5(file.read()).hex()
        return joined([md5(chunk) for chunk in iter(lambda: file.read(step), b"")])


def is_checksum(answer: Mapping[str, Any]) -> bool:
    """Whether the ETag in an answer of S3 tells of the bytes: under a key of KMS or of the customer's it does not."""
    return "SSECustomerAlgorithm" not in answer and answer.get("ServerSideEncryption", "AES256") == "AES256"


def agrees(payload: bytes, answer: Mapping[str, Any]) -> bool:
    """Whether bytes have the ETag and the metadata that an answer of S3 tells; true where these tell nothing."""
    etag, metadata = answer["ETag"].strip('"'), answer.get("Metadata", {})
    sha256 = metadata.get("sha256")
    if sha256 is not None and hashlib.sha256(payload).hexdigest() != sha256:
        return False
    if is_checksum(answer) and _PLAIN.fullmatch(etag):
        return bool(md5(payload).hex() == etag)
    step = metadata.get(METADATA, "")
    if is_checksum(answer) and _JOINED.fullmatch(etag) and step.isdigit() and int(step) > 0:
        return bool(joined([md5(payload[at : at + int(step)]) for at in range(0, len(payload), int(step))]) == etag)
    return True
