"""Objects in S3 behind a server that throttles, resets, cuts and damages: the same bytes come, or one clear error."""

import hashlib
import logging
import random
from pathlib import Path

import pytest
from object_store import Bucket

from scanloop.errors import ConfigError, ObjectGoneError, StorageError
from scanloop.storage import etag, s3
from scanloop.storage.address import Address, check_no_credentials
from scanloop.storage.patience import PassingError, Patience
from scanloop.storage.s3 import S3Store
from scanloop.storage.store import Stored, open_store

PAYLOAD = random.Random(0).randbytes(50_000)


def written(folder: Path, payload: bytes, name: str = "file.bin") -> Path:
    path = folder / name
    path.write_bytes(payload)
    return path


def uploads(bucket: Bucket) -> list[str]:
    return [one["UploadId"] for one in bucket.direct.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])]


def test_objects_are_listed_in_order_over_pages_with_size_and_etag(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 10)
    names = [f"raw/{number:04d}.bin" for number in range(35)]
    for name in reversed(names):
        bucket.direct.put_object(Bucket=bucket.name, Key=name, Body=name.encode())
    bucket.put(other=b"x", rawer__a=b"y")
    bucket.direct.put_object(Bucket=bucket.name, Key="raw/empty/", Body=b"")
    found = bucket.store("raw").objects()
    assert [one.key for one in found] == [name[4:] for name in names]
    md5 = hashlib.md5(b"raw/0007.bin").hexdigest()
    assert len(bucket.proxy.requests("GET", "list-type=2")) == 4
    assert found[7] == Stored("0007.bin", 12, f'"{md5}"')


def test_the_address_of_an_object_is_that_object_alone(bucket: Bucket) -> None:
    bucket.put(a=b"1", ab=b"2")
    assert [(one.key, one.size) for one in bucket.store("a").objects()] == [("", 1)]


@pytest.mark.parametrize("fault", ["slow_down", "slow_down_later", "reset", "cut", "flip", "refuse_connection"])
def test_an_object_comes_whole_whatever_befalls_the_first_answers(bucket: Bucket, fault: str) -> None:
    bucket.put(a=PAYLOAD)
    store = bucket.store()
    (stored,) = store.objects()
    bucket.proxy.plan("GET", "/a", fault, fault)
    assert store.read(stored) == PAYLOAD
    assert bucket.proxy.requests("GET", "/a") == [fault, fault, ""]
    assert len(bucket.waits) == 2
    assert (min(bucket.waits) >= 1) == (fault == "slow_down_later"), "what the server asks for is waited out"


@pytest.mark.parametrize("fault", ["slow_down", "reset", "cut", "refuse_connection"])
def test_a_part_of_an_object_comes_whole_whatever_befalls_the_first_answers(bucket: Bucket, fault: str) -> None:
    bucket.put(a=PAYLOAD)
    store = bucket.store()
    (stored,) = store.objects()
    bucket.proxy.plan("GET", "/a", fault)
    assert store.read_part(stored, 777, 20_000) == PAYLOAD[777:20_777]
    assert bucket.proxy.requests("GET", "/a") == [fault, ""]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("slow_down", "the store answers 503 SlowDown"),
        ("reset", "the connection failed"),
        ("cut", "the connection failed"),
        ("flip", "do not have the checksum that the store knows"),
        ("refuse_connection", "the connection failed"),
    ],
)
def test_what_stays_broken_is_one_clear_error(bucket: Bucket, fault: str, words: str) -> None:
    bucket.put(a=PAYLOAD)
    store = bucket.store()
    (stored,) = store.objects()
    bucket.proxy.plan("GET", "/a", *[fault] * 9)
    with pytest.raises(StorageError) as error:
        store.read(stored)
    message = str(error.value)
    assert message.startswith(f"read s3://{bucket.name}/a: ")
    assert words in message
    assert "(4 attempts)" in message
    assert len(message.splitlines()) == 1
    assert bucket.proxy.requests("GET", "/a") == [fault] * 4


def test_a_listing_and_a_look_up_are_tried_again(bucket: Bucket) -> None:
    bucket.put(raw__a=b"1", raw__b=b"2")
    bucket.proxy.plan("GET", "list-type=2", "slow_down", "cut")
    bucket.proxy.plan("HEAD", "/raw", "refuse_connection")
    assert [one.key for one in bucket.store("raw").objects()] == ["a", "b"]


def test_waits_grow_are_drawn_and_have_an_end() -> None:
    waits: list[float] = []
    patience = Patience(attempts=12, first_seconds=1, most_seconds=20, sleep=waits.append)

    def fail() -> None:
        raise PassingError("busy")

    for _ in range(200):
        with pytest.raises(StorageError, match=r"read x: busy \(12 attempts\)"):
            patience.try_for("read x", fail)
    by_attempt = [waits[number::11] for number in range(11)]
    for number, own in enumerate(by_attempt):
        top = min(20, 2**number)
        assert 0.9 * top < max(own) <= top
        assert 0.35 * top < sum(own) / len(own) < 0.65 * top, "drawn evenly, so that readers do not come back together"


def test_an_object_that_changed_or_went_since_it_was_listed_is_not_read(bucket: Bucket) -> None:
    bucket.put(a=PAYLOAD, b=PAYLOAD)
    store = bucket.store()
    one, two = store.objects()
    bucket.put(a=PAYLOAD[::-1])
    bucket.direct.delete_object(Bucket=bucket.name, Key="b")
    for stored in (one, two):
        with pytest.raises(ObjectGoneError, match="list it again"):
            store.read(stored)
        with pytest.raises(ObjectGoneError):
            store.read_part(stored, 0, 10)
    assert bucket.waits == []


def test_an_object_too_large_for_memory_is_not_asked_for(bucket: Bucket) -> None:
    with pytest.raises(StorageError, match="at most 1073741824 are read at once"):
        bucket.store().read(Stored("a", (1 << 30) + 1, None))
    assert bucket.proxy.seen == []


@pytest.mark.parametrize("fault", ["slow_down", "refuse_connection", "lose_answer", "flip_request"])
def test_a_small_object_is_put_whole_whatever_befalls_the_first_attempts(
    bucket: Bucket, tmp_path: Path, fault: str
) -> None:
    bucket.proxy.plan("PUT", "/a", fault, fault)
    bucket.store().put("a", written(tmp_path, PAYLOAD))
    assert bucket.bytes_of("a") == PAYLOAD
    bucket.store().put("a", written(tmp_path, PAYLOAD))
    assert len(bucket.proxy.requests("PUT", "/a")) == 3, "what is there is not sent again"


def test_bytes_that_never_arrive_right_leave_no_object(bucket: Bucket, tmp_path: Path) -> None:
    bucket.proxy.plan("PUT", "/a", *["flip_request"] * 4)
    with pytest.raises(StorageError, match=rf"write s3://{bucket.name}/a"):
        bucket.store().put("a", written(tmp_path, PAYLOAD))
    assert bucket.names() == []


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes of three parts and a bit, parts being as small as S3 allows."""
    monkeypatch.setattr(etag, "PART_BYTES", 5 << 20)
    return random.Random(1).randbytes((15 << 20) + 321)


@pytest.mark.parametrize("fault", ["slow_down", "refuse_connection", "lose_answer", "flip_request"])
def test_a_large_object_is_put_in_parts_whole_whatever_befalls_them(
    bucket: Bucket, tmp_path: Path, parts: bytes, fault: str
) -> None:
    bucket.proxy.plan("PUT", "partNumber=2", fault)
    bucket.proxy.plan("PUT", "partNumber=4", fault, fault)
    bucket.store().put("big", written(tmp_path, parts))
    assert bucket.bytes_of("big") == parts
    assert uploads(bucket) == []
    (stored,) = bucket.store().objects()
    assert (stored.version or "").endswith('-4"')
    bucket.proxy.plan("GET", "/big", "flip")
    assert bucket.store().read(stored) == parts
    assert bucket.proxy.requests("GET", "/big")[-2:] == ["flip", ""], "parts' checksums are checked as well"


def test_a_lost_answer_to_the_completion_is_no_second_upload(bucket: Bucket, tmp_path: Path, parts: bytes) -> None:
    bucket.proxy.plan("POST", "uploadId=", "lose_answer")
    bucket.store().put("big", written(tmp_path, parts))
    assert bucket.bytes_of("big") == parts
    assert len(bucket.proxy.requests("PUT", "partNumber")) == 4


def test_an_upload_that_died_half_way_shows_nothing_and_goes_on_where_it_stood(
    bucket: Bucket, tmp_path: Path, parts: bytes
) -> None:
    path = written(tmp_path, parts)
    bucket.proxy.plan("PUT", "partNumber=3", *["refuse_connection"] * 4)
    with pytest.raises(StorageError, match="part 3"):
        bucket.store().put("big", path)
    assert bucket.names() == []
    assert len(uploads(bucket)) == 1
    before = len(bucket.proxy.requests("PUT", "partNumber"))
    bucket.store().put("big", path)
    assert bucket.bytes_of("big") == parts
    assert uploads(bucket) == []
    sent_again = len(bucket.proxy.requests("PUT", "partNumber")) - before
    assert 1 <= sent_again <= 2, "part 3, and part 4 where it had not been sent"


def test_parts_of_another_file_are_not_mixed_in(bucket: Bucket, tmp_path: Path, parts: bytes) -> None:
    bucket.proxy.plan("PUT", "partNumber=4", *["refuse_connection"] * 4)
    with pytest.raises(StorageError):
        bucket.store().put("big", written(tmp_path, parts))
    other = bytes(reversed(parts))
    bucket.store().put("big", written(tmp_path, other))
    assert bucket.bytes_of("big") == other


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:w8-kO@bucket/a",
        "https://ann:w8-kO@host/a.tar",
        "s3://bucket/a?X-Amz-Signature=w8-kO",
        "https://host/a.tar#w8-kO",
    ],
)
def test_a_credential_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="leave them out") as error:
        open_store(url)
    assert "w8-kO" not in str(error.value)
    with pytest.raises(ConfigError, match="leave them out") as error:
        open_store("s3://bucket/a", endpoint_url=url)
    assert "w8-kO" not in str(error.value)
    assert check_no_credentials("/home/ann@ward/a?b.tar") == "/home/ann@ward/a?b.tar", "a local path is no address"


def test_no_secret_stands_in_errors_or_logs(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "scanloop"):
        bucket.proxy.plan("HEAD", "/a", *["slow_down"] * 9)
        with pytest.raises(StorageError) as error:
            bucket.store("a").objects()
    told = f"{error.value!r}{error.value.__cause__}{caplog.text}"
    assert "attempt 2 in" in caplog.text
    for secret in ("unguessable", "Signature", "Credential"):
        assert secret not in told


def test_missing_credentials_a_missing_bucket_and_no_server_are_said_in_one_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="there is no such bucket: create it"):
        S3Store(Address.parse("s3://bucket-that-is-not/"), bucket.proxy.url, Patience()).objects()
    closed = S3Store(Address.parse("s3://b/"), "http://127.0.0.1:9", Patience(attempts=2, sleep=bucket.waits.append))
    with pytest.raises(StorageError, match=r"the connection failed \(EndpointConnectionError\) \(2 attempts\)"):
        closed.objects()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no credentials were found: set AWS_ACCESS_KEY_ID"):
        bucket.store().objects()
