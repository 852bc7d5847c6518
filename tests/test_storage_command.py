"""`scanloop storage`: a bucket is what its configuration says, once and again; folders go and come."""

import re
from pathlib import Path
from typing import Any

import pytest
from object_store import Bucket
from test_cli import invoke

from scanloop.errors import ConfigError, StorageError

LEAST = "ingest: {source: {kind: synthetic}}\n"


def applied(bucket: Bucket, path: Path, text: str = "", *options: str) -> str:
    path.write_text(LEAST + text)
    target = ("--bucket", f"s3://{bucket.name}", "--endpoint-url", bucket.proxy.url)
    result = invoke("storage", "apply", *target, "--config", str(path), *options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(re.sub(r"[│┃]", " ", result.output).split())


def rules(bucket: Bucket) -> dict[str, dict[str, Any]]:
    found = bucket.direct.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    return {rule["ID"]: rule for rule in found}


def changes(bucket: Bucket) -> list[str]:
    return [path for method, path, _ in bucket.proxy.seen if method in {"PUT", "DELETE", "POST"}]


def test_a_bucket_becomes_what_the_configuration_says(bucket: Bucket, tmp_path: Path) -> None:
    text = (
        "storage: {raw_after_days: 45, abort_multipart_days: 3, expire_noncurrent_days: 60, expire_scratch_days: 5}\n"
    )
    applied(bucket, tmp_path / "run.yaml", text)
    name = bucket.name
    assert bucket.direct.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    block = bucket.direct.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    assert len(block) == 4
    (rule,) = bucket.direct.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    found = rules(bucket)
    assert found["scanloop-raw"]["Transitions"] == [{"Days": 45, "StorageClass": "STANDARD_IA"}]
    assert found["scanloop-raw"]["Filter"] == {"Prefix": "raw/"}
    assert found["scanloop-multipart"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    assert found["scanloop-noncurrent"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 60}
    assert found["scanloop-scratch"]["Expiration"]["Days"] == 5
    assert bucket.names() == [], "what was put to see whether it can be put is gone"


def test_a_dry_run_tells_the_difference_and_changes_nothing(bucket: Bucket, tmp_path: Path) -> None:
    told = applied(bucket, tmp_path / "run.yaml", "", "--dry-run")
    assert "nothing was changed" in told
    assert told.count("would change") == 7
    assert changes(bucket) == []


def test_the_second_time_nothing_is_changed(bucket: Bucket, tmp_path: Path) -> None:
    assert applied(bucket, tmp_path / "run.yaml").count("changed") == 7
    before = len(changes(bucket))
    assert applied(bucket, tmp_path / "run.yaml").count("kept") == 7
    assert len(changes(bucket)) == before


def test_rules_of_others_are_kept_and_own_ones_that_are_no_longer_wanted_go(bucket: Bucket, tmp_path: Path) -> None:
    other = {"ID": "legal", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 99}}
    bucket.direct.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": [other]})
    applied(bucket, tmp_path / "run.yaml")
    assert set(rules(bucket)) == {
        "legal", "scanloop-raw", "scanloop-multipart", "scanloop-noncurrent", "scanloop-scratch",
    }  # fmt: skip
    applied(bucket, tmp_path / "run.yaml", "storage: {raw_after_days: null, expire_scratch_days: null}\n")
    assert set(rules(bucket)) == {"legal", "scanloop-multipart", "scanloop-noncurrent"}
    assert rules(bucket)["legal"]["Expiration"]["Days"] == 99
    none = "raw_after_days: null, expire_scratch_days: null, abort_multipart_days: null, expire_noncurrent_days: null"
    applied(bucket, tmp_path / "run.yaml", f"storage: {{{none}}}\n")
    assert set(rules(bucket)) == {"legal"}


def test_a_throttled_server_is_asked_again(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanloop.storage.patience.Patience._wait", lambda self, number, asked: 0.0)
    bucket.proxy.plan("PUT", "lifecycle", "slow_down", "lose_answer")
    applied(bucket, tmp_path / "run.yaml")
    assert len(rules(bucket)) == 4


def test_what_is_no_bucket_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(LEAST)
    for address in ("s3://bucket/prefix", "memory://bucket", "/data"):
        result = invoke("storage", "apply", "--bucket", address, "--config", str(tmp_path / "run.yaml"))
        assert isinstance(result.exception, ConfigError), address
    target = ("--bucket", "s3://bucket-that-is-not", "--endpoint-url", bucket.proxy.url)
    result = invoke("storage", "apply", *target, "--config", str(tmp_path / "run.yaml"))
    assert isinstance(result.exception, StorageError)


def test_a_folder_goes_and_comes_by_the_command(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_bytes(b"{}")
    url, endpoint = f"s3://{bucket.name}/b", ("--endpoint-url", bucket.proxy.url)
    pushed = invoke("storage", "push", str(tmp_path / "bundle"), url, *endpoint)
    assert pushed.output == f"{url}: 1 files, 2 bytes\n"
    assert invoke("storage", "pull", url, str(tmp_path / "back"), *endpoint).exit_code == 0
    assert (tmp_path / "back" / "bundle.json").read_bytes() == b"{}"
