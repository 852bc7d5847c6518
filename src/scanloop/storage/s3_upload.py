"""Uploads to S3 that are whole or absent: one put, or parts that become an object at the very end."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanloop.storage.etag import METADATA, etag_of_file, is_checksum, joined, md5, part_bytes
from scanloop.storage.explain import explained
from scanloop.storage.patience import PassingError

if TYPE_CHECKING:
    from scanloop.storage.s3 import S3Store

_THREADS = 4


def upload(store: "S3Store", key: str, path: Path) -> None:
    """Make an object of a file, unless it is there; parts that an earlier attempt sent are not sent again.

    Raises:
        StorageError: The store refuses it or does not answer; no half object can be seen.
    """
    etag = etag_of_file(path)
    if "-" in etag:
        store.patience.try_for(f"write {store.name(key)}", lambda: _put_parts(store, key, path, etag))
    elif not _is_there(store, key, etag):
        _put(store, key, path.read_bytes())


def _is_there(store: "S3Store", key: str, etag: str) -> bool:
    head = store.head(key)
    return head is not None and is_checksum(head) and head["ETag"].strip('"') == etag


def _put(store: "S3Store", key: str, payload: bytes) -> None:
    def attempt() -> None:
        with explained(store.name(key)):
            answer = store.client.put_object(
                **_where(store, key),
                Body=payload,
                ContentMD5=base64.b64encode(md5(payload)).decode(),
                Metadata={"sha256": hashlib.sha256(payload).hexdigest()},
            )
        _check(store, key, answer, md5(payload).hex())

    store.patience.try_for(f"write {store.name(key)}", attempt)


def _put_parts(store: "S3Store", key: str, path: Path, etag: str) -> None:
    if _is_there(store, key, etag):  # from an earlier run, or the answer to its completion was lost
        return
    size = path.stat().st_size
    step = part_bytes(size)
    offsets = range(0, size, step)
    with explained(store.name(key)):
        upload_id, there = _begun(store, key) or (_begin(store, key, step), {})
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as pool:
        sent = [
            pool.submit(_send, store, key, upload_id, number, path, offset, step, there.get(number))
            for number, offset in enumerate(offsets, 1)
        ]
        try:
            md5s = [one.result() for one in sent]
        finally:
            pool.shutdown(cancel_futures=True)
    parts = [{"PartNumber": number, "ETag": f'"{one.hex()}"'} for number, one in enumerate(md5s, 1)]
    with explained(store.name(key)):
        store.client.complete_multipart_upload(
            **_where(store, key), UploadId=upload_id, MultipartUpload={"Parts": parts}
        )
    head = store.head(key)  # the answer to the completion may lack the ETag, as that of Ceph 16 does
    if head is None:
        raise PassingError("the store does not show what it completed")
    _check(store, key, head, joined(md5s))


def _send(
    store: "S3Store", key: str, upload_id: str, number: int, path: Path, offset: int, size: int, there: str | None
) -> bytes:
    """MD5 of a part that the store holds now."""
    with path.open("rb") as file:
        file.seek(offset)
        payload = file.read(size)
    own = md5(payload)
    if there == own.hex():
        return own

    def attempt() -> None:
        with explained(store.name(key)):
            answer = store.client.upload_part(
                **_where(store, key),
                UploadId=upload_id,
                PartNumber=number,
                Body=payload,
                ContentMD5=base64.b64encode(own).decode(),
            )
        if is_checksum(answer) and answer["ETag"].strip('"') != own.hex():
            raise PassingError("the store holds other bytes than were sent")

    store.patience.try_for(f"write {store.name(key)}, part {number}", attempt)
    return own


def _begin(store: "S3Store", key: str, step: int) -> str:
    begun = store.client.create_multipart_upload(**_where(store, key), Metadata={METADATA: str(step)})
    return str(begun["UploadId"])


def _begun(store: "S3Store", key: str) -> tuple[str, dict[int, str]] | None:
    """The latest upload of this key that was begun and not ended, and the ETags of its parts by number."""
    where = _where(store, key)
    page = store.client.list_multipart_uploads(Bucket=where["Bucket"], Prefix=where["Key"])
    own = [one for one in page.get("Uploads", []) if one["Key"] == where["Key"]]
    if not own:
        return None
    upload_id = str(max(own, key=lambda one: one["Initiated"])["UploadId"])
    parts: dict[int, str] = {}
    marker: dict[str, int] = {}
    while True:
        listed: dict[str, Any] = store.client.list_parts(**where, UploadId=upload_id, **marker)
        parts |= {one["PartNumber"]: one["ETag"].strip('"') for one in listed.get("Parts", [])}
        if not listed.get("IsTruncated"):
            return upload_id, parts
        marker = {"PartNumberMarker": listed["NextPartNumberMarker"]}


def _check(store: "S3Store", key: str, answer: dict[str, Any], etag: str) -> None:
    """Take back an object that does not hold what was sent: of a server that does not check for itself."""
    if is_checksum(answer) and answer["ETag"].strip('"') != etag:
        version = {"VersionId": answer["VersionId"]} if answer.get("VersionId", "null") != "null" else {}
        with explained(store.name(key)):
            store.client.delete_object(**_where(store, key), **version)
        raise PassingError("the store holds other bytes than were sent")


def _where(store: "S3Store", key: str) -> dict[str, str]:
    return {"Bucket": store.address.bucket, "Key": store.full_key(key)}
