"""Samples of what is served: what is in them and what never is, whole after a kill, never in a request's way."""

import hashlib
import hmac
import json
import signal
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import TOKEN, V1, V2, metric, start, v1, v2
from tiny_bundle import draw_slices, to_jpeg

from scanloop.artifacts import read_json, write_json, write_table
from scanloop.bundle.decisions import decide
from scanloop.bundle.predict import Bundle
from scanloop.config import DetectDriftConfig
from scanloop.drift.served import served_confidences
from scanloop.errors import ArtifactError, ConfigError
from scanloop.steps.detect_drift import detect_drift
from scanloop.tables import SAMPLES
from serving import sampling
from serving.asked import Asked, Sent
from serving.deciding import Found
from serving.sampling import Rotation, Sampler, sampler_of

KEY = b"0123456789abcdef0123456789abcdef"


def read(folder: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def answered(bundle: Bundle, payloads: list[bytes]) -> tuple[SimpleNamespace, Asked, list[Found]]:
    squares = np.stack([bundle.preprocess.square(bundle.decode(payload)) for payload in payloads])
    decisions = decide(bundle, bundle.engine.run_squares(squares))
    asked = Asked([Sent(f"[{number}]", payload) for number, payload in enumerate(payloads)])
    return SimpleNamespace(bundle=bundle), asked, [Found(decisions, row) for row in range(len(payloads))]


def test_a_served_image_leaves_its_keyed_hash_its_embedding_and_its_answer_and_no_pixel(
    served_folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    samples = tmp_path / "samples"
    options = ("--sample-to", str(samples), "--sample-share", "1", "--sample-key-file", str(tmp_path / "key"))
    server = start(tmp_path, served_folder, "--token-file", str(tmp_path / "token"), *options)
    payloads = [to_jpeg(image) for image in draw_slices(5)]
    body = v1(*payloads, b"no image") | {"parameters": {"bad_images": "abstain"}}
    said = server.client.post(V1, json=body).json()["predictions"]
    server.client.post(V2, json=v2(payloads[0]))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0, server.log.read_text()
    server.client.close()
    (path,) = samples.iterdir()
    assert pq.read_schema(path).equals(SAMPLES)
    rows = read(samples)
    expected = [hmac.new(KEY, one, hashlib.sha256).hexdigest() for one in (*payloads, b"no image", payloads[0])]
    assert rows["sha256"].tolist() == expected
    assert rows["label"].tolist()[:5] == [row["label"] for row in said[:5]]
    assert rows["abstained"].tolist()[:6] == [row["abstained"] for row in said]
    for column in ("confidence", "strangeness"):
        np.testing.assert_allclose(rows[column].tolist()[:5], [row[column] for row in said[:5]])
    squares = np.stack([bundle.preprocess.square(bundle.decode(payload)) for payload in payloads])
    embeddings = bundle.engine.run_squares(squares).embeddings
    np.testing.assert_allclose(np.stack(rows["embedding"].tolist()[:5]), embeddings, rtol=2e-3, atol=1e-3)
    assert set(rows["model_digest"]) == {bundle.digest}
    assert rows["time"].is_monotonic_increasing
    assert abs((rows["time"].iloc[0] - datetime.now(UTC)).total_seconds()) < 120
    longest = max(len(value) for value in rows["embedding"] if value is not None)
    assert longest == 8  # numbers of the network's width: nothing of an image's size is written


def test_a_share_is_drawn_and_files_end_by_count_and_by_age_and_the_oldest_go(bundle: Bundle, tmp_path: Path) -> None:
    payloads = [to_jpeg(image) for image in draw_slices(8)]
    counted = Sampler(tmp_path / "counted", 0.25, rotation=Rotation(rows=40, seconds=60, files=3))
    for _ in range(100):
        counted(*answered(bundle, payloads))
        time.sleep(0.002)
    counted.close()
    files = sorted((tmp_path / "counted").iterdir())
    assert len(files) == 3
    assert [pq.read_metadata(path).num_rows for path in files[:2]] == [40, 40]
    written = int(files[-1].stem.rpartition("-")[2]) * 40 + pq.read_metadata(files[-1]).num_rows
    assert 120 < written < 280  # of 800, 0.25; five standard deviations
    aged = Sampler(tmp_path / "aged", 1.0, rotation=Rotation(rows=1000, seconds=0.2, files=10))
    aged(*answered(bundle, payloads))
    deadline = time.monotonic() + 5
    while not list((tmp_path / "aged").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(read(tmp_path / "aged")) == 8
    aged.close()


def test_a_writer_that_stands_still_holds_up_no_request_and_what_finds_no_room_is_counted(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_QUEUED", 16)
    free = threading.Event()
    monkeypatch.setattr(Sampler, "_row", lambda self, sample: free.wait(30) and {"sha256": "a"})
    sampler = Sampler(tmp_path / "s", 1.0)
    given = answered(bundle, [to_jpeg(image) for image in draw_slices(8)])
    before = sampling.SAMPLES_DROPPED._value.get()
    began = time.perf_counter()
    for _ in range(50):
        sampler(*given)
    assert time.perf_counter() - began < 1
    dropped = sampling.SAMPLES_DROPPED._value.get() - before
    assert 400 - 16 - 2 <= dropped <= 400 - 16
    free.set()
    sampler.close()
    assert len(read(tmp_path / "s")) == 400 - dropped


def test_few_large_images_fill_the_queue_by_their_bytes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_QUEUED_BYTES", 1000)
    sampler = Sampler(tmp_path / "s", 1.0)
    loaded, _, found = answered(bundle, [to_jpeg(draw_slices(1)[0])])
    before = sampling.SAMPLES_DROPPED._value.get()
    sampler(loaded, Asked([Sent("[0]", bytes(2000))]), found)  # type: ignore[arg-type]
    sampler.close()
    assert sampling.SAMPLES_DROPPED._value.get() == before + 1
    assert list((tmp_path / "s").iterdir()) == []


def test_a_disk_that_fails_costs_samples_and_nothing_else(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sampler = Sampler(tmp_path / "s", 1.0, rotation=Rotation(rows=2))
    monkeypatch.setattr(sampling, "write_bytes", full)
    given = answered(bundle, [to_jpeg(image) for image in draw_slices(4)])
    sampler(*given)
    time.sleep(0.2)
    monkeypatch.undo()
    sampler(*given)
    sampler.close()
    assert len(read(tmp_path / "s")) == 4


@pytest.mark.parametrize(
    ("content", "mode", "words"), [(b"short", 0o600, "no key|are a key"), (KEY, 0o644, "chmod 600")]
)
def test_a_key_that_is_short_or_open_to_everyone_is_refused(
    content: bytes, mode: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError, match=words):
        sampler_of(tmp_path / "s", 0.5, tmp_path / "key")
    assert sampler_of(None, 0.5, None) is None


def test_the_folder_of_samples_is_for_its_owner_alone(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "s", 0.5)
    sampler.close()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def evaluation(path: Path, confidence: np.ndarray) -> Path:
    """What the deployed model said of a test split."""
    write_json(path / "artifact.json", {"kind": "evaluation", "key": path.name, "summary": {}, "files": {}})
    write_json(path / "metrics.json", {"holdout": {"kind": "test"}, "deployed_arm": "supervised"})
    write_json(path / "curves.json", {"positive_class": "cancer"})
    rows = pd.DataFrame({"slice_id": [f"s{row}" for row in range(len(confidence))], "confidence": confidence})
    rows = rows.assign(uri=rows["slice_id"], split="test", given_label="normal", label="normal")
    others = rows.head(5).assign(split="pool", slice_id="p", confidence=0.5, given_label=None)
    write_table(path, "predictions.parquet", pd.concat([rows, rows.head(3), others]))
    return path


def test_a_verdict_on_drift_comes_out_of_sampled_rows(bundle: Bundle, tmp_path: Path) -> None:
    usual = [to_jpeg(image) for image in draw_slices(160, seed=1)]
    measured = bundle.predict_bytes([to_jpeg(image) for image in draw_slices(160, seed=2)]).max(axis=1)
    sharp = [to_jpeg(np.full((40, 40), 10 + row, np.uint8)) for row in range(120)]
    verdicts = {}
    for name, payloads in (("alike", usual), ("other", sharp)):
        sampler = Sampler(tmp_path / name, 1.0)
        for start_row in range(0, len(payloads), 8):
            sampler(*answered(bundle, payloads[start_row : start_row + 8]))
            sampler(*answered(bundle, payloads[start_row : start_row + 8]))  # sent twice, counted once
        sampler.close()
        given = evaluation(tmp_path / f"evaluation of {name}", measured)
        output = tmp_path / f"drift of {name}"
        verdicts[name] = detect_drift(DetectDriftConfig(samples=str(tmp_path / name)), evaluation=given, output=output)
        assert verdicts[name].n_reference == 160
        assert verdicts[name].n_current == len({hashlib.sha256(one).digest() for one in payloads})
        assert "the model that is served" in read_json(output / "drift.json")["basis"]
    assert verdicts["alike"].drifted is False
    assert verdicts["other"].drifted is True


def test_samples_of_an_earlier_model_are_left_out_and_damaged_or_missing_ones_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "sha256": ["a", "b", "c"], "confidence": [0.6, 0.7, None], "positive": [True, False, None],
        "time": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"], utc=True), "model_digest": ["1", "2", "2"],
    })  # fmt: skip
    with pytest.raises(ArtifactError, match="no samples"):
        served_confidences(tmp_path)
    rows = pa.Table.from_pylist(frame.astype(object).where(frame.notna(), None).to_dict("records"), SAMPLES)
    pq.write_table(rows, tmp_path / "samples-1.parquet")
    assert served_confidences(tmp_path).confidence.tolist() == [0.7]
    assert served_confidences(tmp_path, "1").positive.tolist() == [True]
    (tmp_path / "samples-2.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"samples-2\.parquet"):
        served_confidences(tmp_path)
    config = DetectDriftConfig(samples=str(tmp_path))
    evaluated = evaluation(tmp_path / "e", np.array([0.5]))
    with pytest.raises(ConfigError, match="not both"):
        detect_drift(config, evaluation=evaluated, current=evaluated, output=tmp_path / "d")


def test_the_servers_counters_say_what_was_sampled(served_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    server = start(tmp_path, served_folder, "--token-file", str(tmp_path / "token"), "--sample-to", str(tmp_path / "s"))
    try:
        assert metric(server.client, "scanloop_samples_dropped_total") == 0
        assert json.dumps(server.client.post(V1, json=v1(to_jpeg(draw_slices(1)[0]))).json())
    finally:
        server.process.kill()
        server.process.wait()
        server.client.close()
