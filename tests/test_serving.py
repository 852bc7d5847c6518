"""The model server as clients meet it: a real process on a free port, with a real bundle of a tiny network."""

import json
import signal
import subprocess
import tarfile
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import (
    CHECKOUT,
    JPEG,
    LARGE,
    MAX_BATCH,
    TOKEN,
    V1,
    V2,
    Server,
    command_line,
    encode,
    metric,
    pixels,
    v1,
    v1_probabilities,
    v2,
    v2_outputs,
)
from tiny_bundle import draw_slices, to_jpeg

from scanloop.bundle.predict import Bundle
from scanloop.errors import BundleError, ConfigError
from serving.access import read_token


def test_real_jpegs_get_the_bundles_probabilities_through_both_protocols(
    client: httpx.Client, bundle: Bundle, data_dir: Path
) -> None:
    with tarfile.open(data_dir / "brain_mri_oc.tar") as archive:
        names = [name for name in archive.getnames() if name.lower().endswith((".jpg", ".jpeg"))][:12]
        payloads = [archive.extractfile(name).read() for name in names]
    expected = bundle.predict_bytes(payloads)
    assert len(payloads) == 12
    assert np.ptp(expected[:, 0]) > 0.01
    one_by_one = np.concatenate([v1_probabilities(client.post(V1, json=v1(payload)), bundle) for payload in payloads])
    np.testing.assert_allclose(one_by_one, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        v1_probabilities(client.post(V1, json=v1(*payloads)), bundle), expected, rtol=0, atol=1e-6
    )
    outputs = v2_outputs(client.post(V2, json=v2(*payloads)))
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=0, atol=1e-6)


def test_an_answer_names_label_confidence_and_the_very_model(client: httpx.Client, bundle: Bundle) -> None:
    payloads = [to_jpeg(image) for image in draw_slices(4)]
    expected = bundle.predict_bytes(payloads)
    labels = [bundle.classes[index] for index in expected.argmax(axis=1)]
    assert len(set(labels)) == 2
    rows = client.post(V1, json=v1(*payloads)).json()["predictions"]
    assert [row["label"] for row in rows] == labels
    np.testing.assert_allclose([row["confidence"] for row in rows], expected.max(axis=1), rtol=0, atol=1e-6)
    assert {row["model_digest"] for row in rows} == {bundle.digest}
    answer = client.post(V2, json={"id": "42"} | v2(*payloads))
    outputs, body = v2_outputs(answer), answer.json()
    assert outputs["label"].tolist() == labels
    np.testing.assert_allclose(outputs["confidence"], expected.max(axis=1), rtol=0, atol=1e-6)
    assert (body["id"], body["model_name"], body["parameters"]["model_digest"]) == ("42", "scanloop", bundle.digest)
    assert json.loads(body["parameters"]["classes"]) == list(bundle.classes)


def test_an_answer_holds_each_images_set_of_classes_beside_what_was_there_before(
    client: httpx.Client, bundle: Bundle
) -> None:
    payloads = [to_jpeg(image) for image in draw_slices(12)]
    probabilities = bundle.predict_bytes(payloads)
    inside = probabilities >= np.array(bundle.conformal.thresholds)
    assert set(inside.sum(axis=1)) == {1, 2}
    rows = client.post(V1, json=v1(*payloads)).json()["predictions"]
    assert [row["set"] for row in rows] == [
        [name for name, one in zip(bundle.classes, row, strict=True) if one] for row in inside
    ]
    assert {*rows[0]} == {
        *("label", "confidence", "probabilities", "set", "abstained", "strangeness"),
        *("operating_point", "model_digest", "data_digest"),
    }
    outputs = v2_outputs(client.post(V2, json=v2(*payloads)))
    np.testing.assert_array_equal(outputs["set"], inside)
    assert list(outputs) == ["probabilities", "label", "confidence", "set", "abstained", "strangeness"]
    alone = v2_outputs(client.post(V2, json=v2(*payloads) | {"outputs": [{"name": "set"}]}))
    np.testing.assert_array_equal(alone["set"], inside)


def test_plain_b64_instances_are_taken_too(client: httpx.Client, bundle: Bundle) -> None:
    payload = to_jpeg(draw_slices(1)[0])
    answer = client.post(V1, json={"instances": [{"b64": encode(payload)}]})
    np.testing.assert_allclose(v1_probabilities(answer, bundle), bundle.predict_bytes([payload]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(20, 30), (30, 20, 3)])
def test_pixels_get_the_bundles_probabilities(
    client: httpx.Client, bundle: Bundle, shape: tuple[int, ...], nested: bool
) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8))
    changes = {"data": np.stack(images).tolist()} if nested else {}
    outputs = v2_outputs(client.post(V2, json=pixels(images, **changes)))
    np.testing.assert_allclose(outputs["probabilities"], bundle.predict(images), rtol=0, atol=1e-6)


def test_v2_sends_the_outputs_asked_for(client: httpx.Client) -> None:
    body = v2(to_jpeg(draw_slices(1)[0])) | {"outputs": [{"name": "label"}]}
    assert list(v2_outputs(client.post(V2, json=body))) == ["label"]


def test_metadata_and_readiness_follow_the_protocol(client: httpx.Client) -> None:
    metadata = client.get("/v2/models/scanloop").json()
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"][0] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    for path in ("/", "/v1/models/scanloop", "/v2/health/live", "/v2/health/ready", "/v2/models/scanloop/ready"):
        assert client.get(path).status_code == 200


def test_metrics_count_predictions_confidences_and_refusals(client: httpx.Client, bundle: Bundle) -> None:
    payload = to_jpeg(draw_slices(1)[0])
    (row,) = bundle.predict_bytes([payload])
    label, confidence = bundle.classes[row.argmax()], row.max()
    total = f'scanloop_predictions_total{{label="{label}"}}'
    bucket = f'scanloop_prediction_confidence_bucket{{label="{label}",le="0.85"}}'
    count = f'scanloop_prediction_confidence_count{{label="{label}"}}'
    refused = 'scanloop_rejected_requests_total{reason="not_an_image"}'
    client.post(V1, json=v1(b"text"))  # so that the series exists
    before = {series: metric(client, series) for series in (total, bucket, count, refused)}
    assert client.post(V1, json=v1(payload, payload)).status_code == 200
    assert client.post(V2, json=v2(b"text")).status_code == 400
    after = {series: metric(client, series) - before[series] for series in before}
    assert after == {total: 2, bucket: 2 if confidence <= 0.85 else 0, count: 2, refused: 1}
    told = f'digest="{bundle.digest}",engine="onnxruntime",name="scanloop",precision="float32"'
    assert metric(client, f"scanloop_model_info{{{told}}}") == 1
    assert metric(client, 'scanloop_request_seconds_count{protocol="v1"}') >= 1


def test_health_is_answered_while_images_are_classified(client: httpx.Client) -> None:
    done: list[int] = []
    body = v1(*[LARGE] * MAX_BATCH)
    worker = threading.Thread(target=lambda: done.append(client.post(V1, json=body).status_code))
    worker.start()
    answered = 0
    while worker.is_alive():
        assert client.get("/v2/health/ready").status_code == 200
        answered += worker.is_alive()
    assert done == [200]
    assert answered >= 5


def test_a_token_is_asked_of_everything_but_health(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url, trust_env=False) as stranger:
        for path in ("/v2/health/ready", "/v2/health/live", "/v1/models/scanloop", "/v2/models/scanloop/ready"):
            assert stranger.get(path).status_code == 200
        for authorization in ("", "Bearer wrong", "Bearer", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            answer = stranger.post(V1, json=v1(JPEG), headers={"authorization": authorization})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in answer.text
        for path in ("/metrics", "/v2/models/scanloop", "/openapi.json", "/v1/models"):
            assert stranger.get(path).status_code == 401
        assert stranger.post("/v2/repository/models/scanloop/unload").status_code == 401
        assert stranger.post("/v1/models/scanloop").status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_host_is_open_only_where_that_is_said(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANLOOP_TOKEN", raising=False)
    assert read_token(host, None, open_to_all=True) is None
    with pytest.raises(ConfigError, match="--open, on loopback"):
        read_token(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])
def test_a_public_host_needs_a_token_or_certificates(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANLOOP_TOKEN", raising=False)
    for open_to_all in (False, True):
        with pytest.raises(ConfigError, match="token"):
            read_token(host, None, open_to_all=open_to_all)
    assert read_token(host, None, certified=True) is None
    monkeypatch.setenv("SCANLOOP_TOKEN", TOKEN)
    assert read_token(host, None) == TOKEN


def test_a_token_file_that_holds_none_is_refused_even_where_the_environment_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLOOP_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token("127.0.0.1", tmp_path / "nowhere")
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(ConfigError, match="empty"):
        read_token("127.0.0.1", tmp_path / "token")


def test_a_missing_bundle_is_one_clear_line(tmp_path: Path) -> None:
    command = command_line(tmp_path / "nowhere")
    process = subprocess.run(command, check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert process.returncode == BundleError.exit_code
    assert "nowhere: no bundle lies there" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_server_runs_without_torch(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's libraries in /proc")
    libraries = maps.read_text()
    assert "onnxruntime" in libraries
    assert "libtorch" not in libraries


def test_sigterm_ends_the_server_once_the_requests_under_way_are_answered(server: Server) -> None:
    answers: list[int] = []
    body = v1(*[LARGE] * MAX_BATCH)
    worker = threading.Thread(target=lambda: answers.append(server.client.post(V1, json=body).status_code))
    worker.start()
    while not metric(server.client, "scanloop_in_flight_images"):
        assert worker.is_alive()
    server.process.send_signal(signal.SIGTERM)
    worker.join()
    assert answers == [200]
    assert server.process.wait(timeout=30) in {0, -signal.SIGTERM}
    assert "Traceback" not in server.log.read_text()
