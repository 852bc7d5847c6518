"""The model server as clients meet it: a real process on a free port, with a real bundle of a tiny network."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_bundle import draw_slices, new_bundle, to_jpeg

from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.errors import BundleError, ConfigError
from serving.access import read_token

V1 = "/v1/models/scanloop:predict"
V2 = "/v2/models/scanloop/infer"
MAX_BATCH = 24
TOKEN = "correct horse"
CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path


def start(scratch: Path, bundle: Path, *options: str) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = scratch / "server.log"
    with log.open("wb") as sink:
        command = command_line(bundle, "--port", str(port), *options)
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=sink, stderr=subprocess.STDOUT)
    authorization = {"authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=authorization, timeout=30, trust_env=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/v2/models/scanloop/ready").status_code == 200:
                return Server(process, client, log)
        except httpx.TransportError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError(log.read_text())


def command_line(bundle: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "serving", "--bundle", str(bundle), *options]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("server")
    (scratch / "token").write_text(f"{TOKEN}\n")
    options = ("--max-batch", str(MAX_BATCH), "--max-request-mib", "4", "--token-file", str(scratch / "token"))
    server = start(scratch, folder, *options)
    yield server
    server.client.close()
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server.client


def encode(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def v1(*payloads: bytes) -> dict[str, Any]:
    return {"instances": [{"image": {"b64": encode(payload)}} for payload in payloads]}


def v2(*payloads: bytes, **changes: Any) -> dict[str, Any]:
    texts = [encode(payload) for payload in payloads]
    return {"inputs": [{"name": "image", "shape": [len(texts)], "datatype": "BYTES", "data": texts} | changes]}


def pixels(images: list[np.ndarray], **changes: Any) -> dict[str, Any]:
    stack = np.stack(images)
    tensor = {"name": "image", "shape": list(stack.shape), "datatype": "UINT8", "data": stack.ravel().tolist()}
    return {"inputs": [tensor | changes]}


def v1_probabilities(answer: httpx.Response, bundle: Bundle) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([[row["probabilities"][name] for name in bundle.classes] for row in answer.json()["predictions"]])


def v2_outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer.json()["outputs"]}


def metric(client: httpx.Client, series: str) -> float:
    (value,) = re.findall(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE) or ["nan"]
    return float(value)


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
    assert metric(client, f'scanloop_model_info{{digest="{bundle.digest}",name="scanloop"}}') == 1
    assert metric(client, 'request_predict_seconds_count{model_name="scanloop"}') >= 1


JPEG = to_jpeg(draw_slices(1)[0])
LARGE = to_jpeg(np.full((2000, 2000, 3), 90, np.uint8))
JSON = {"content-type": "application/json"}

REFUSED = {
    "broken JSON, V1": (V1, b"{", 400, "the body is not JSON"),
    "broken JSON, V2": (V2, b"{", 400, "the body is not JSON"),
    "no body, V1": (V1, b"", 400, "the body is not JSON"),
    "no body, V2": (V2, b"", 400, "body: "),
    "a list, V1": (V1, b"[]", 400, "body: must be a JSON object"),
    "a list, V2": (V2, b"[]", 400, "body: "),
    "a text, V2": (V2, b'"{}"', 400, "body: must be a JSON object"),
    "deep nesting, V1": (V1, b"[" * 100_000, 400, "the body is not JSON"),
    "deep nesting, V2": (V2, b"[" * 100_000, 400, ""),
    "not UTF-8, V2": (V2, b'{"inputs": "\xff"}', 400, ""),
    "no instances": (V1, {}, 400, "instances: must be a list of at least one image"),
    "empty instances": (V1, {"instances": []}, 400, "instances: must be a list of at least one image"),
    "instances no list": (V1, {"instances": {"b64": ""}}, 400, "instances: must be a list"),
    "an instance no object": (V1, {"instances": [v1(JPEG)["instances"][0], 3]}, 400, "instances[1].b64: must be"),
    "no b64": (V1, {"instances": [{"image": {"bytes": "x"}}]}, 400, "instances[0].image.b64: must be"),
    "bad base64, V1": (V1, {"instances": [{"b64": "a%b"}]}, 400, "instances[0].b64: not plain base64"),
    "a data URL": (V1, {"instances": [{"b64": "data:image/jpeg;base64,AA=="}]}, 400, "a data URL"),
    "letters outside ASCII": (V1, {"instances": [{"b64": "é"}]}, 400, "instances[0].b64: not plain base64"),
    "no image, V1": (V1, v1(JPEG, b"hello"), 400, "instances[1].image.b64: not_an_image"),
    "an empty image": (V1, v1(b""), 400, "instances[0].image.b64: empty_file"),
    "a cut image": (V1, v1(JPEG[: len(JPEG) // 2]), 400, "instances[0].image.b64: truncated"),
    "a tiny image": (V1, v1(to_jpeg(np.zeros((1, 1), np.uint8))), 400, "instances[0].image.b64: too_small"),
    "too many images, V1": (V1, v1(*[b""] * (MAX_BATCH + 1)), 413, "instances: 25 images; at most 24"),
    "too many images, V2": (V2, v2(*[b""] * (MAX_BATCH + 1)), 413, "25 images; at most 24"),
    "no inputs": (V2, {}, 400, "inputs: Field required"),
    "empty inputs": (V2, {"inputs": []}, 400, "inputs: must hold one tensor"),
    "two inputs": (V2, {"inputs": v2(JPEG)["inputs"] * 2}, 400, "inputs: must hold one tensor"),
    "no data": (
        V2,
        {"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES"}]},
        400,
        "inputs.0.data: Field required",
    ),
    "bad base64, V2": (V2, v2(data=["a%b"], shape=[1]), 400, "inputs[0].data[0]: not plain base64"),
    "no text": (V2, v2(data=[1], shape=[1]), 400, "inputs[0].data[0]: must be the base64 text"),
    "no image, V2": (V2, v2(JPEG, b"hello"), 400, "inputs[0].data[1]: not_an_image"),
    "empty shape": (V2, v2(JPEG, shape=[]), 400, "inputs[0].shape: must be positive"),
    "negative shape": (V2, v2(JPEG, shape=[-1]), 400, "inputs[0].shape: must be positive"),
    "wrong shape": (V2, v2(JPEG, shape=[2]), 400, "inputs[0].data: 1 values do not fill the shape [2]"),
    "wrong type": (V2, v2(JPEG, datatype="FP32"), 400, "inputs[0].datatype: must be BYTES"),
    "half precision": (V2, v2(JPEG, datatype="FP16"), 400, "inputs[0].datatype: must be BYTES"),
    "pixels of rank 2": (V2, pixels([np.zeros((9, 9))], shape=[9, 9]), 400, "inputs[0].shape: must be [n, h, w]"),
    "pixels of two channels": (V2, pixels([np.zeros((9, 9, 2))]), 400, "inputs[0].shape: must be [n, h, w]"),
    "pixels above 255": (V2, pixels([np.full((9, 9), 256)]), 400, "inputs[0].data: must be whole numbers in 0..255"),
    "pixels below 0": (V2, pixels([np.full((9, 9), -1)]), 400, "inputs[0].data: must be whole numbers in 0..255"),
    "fractional pixels": (V2, pixels([np.full((9, 9), 0.5)]), 400, "inputs[0].data: must be whole numbers in 0..255"),
    "ragged pixels": (V2, pixels([np.zeros((9, 9))], data=[[1], 2]), 400, "inputs[0].data: must be whole numbers"),
    "missing pixels": (V2, pixels([np.zeros((9, 9))], data=[1]), 400, "inputs[0].data: 1 values do not fill"),
    "tiny pixels": (V2, pixels([np.zeros((2, 9), np.uint8)]), 400, "inputs[0].data[0]: too_small"),
    "an unknown output": (V2, v2(JPEG) | {"outputs": [{"name": "x"}]}, 400, "outputs[0].name: must be one of"),
    "binary outputs": (V2, v2(JPEG) | {"parameters": {"binary_data_output": True}}, 400, "outputs: binary"),
    "another model, V1": ("/v1/models/nope:predict", v1(JPEG), 404, "model 'nope': no such model"),
    "another model, V2": ("/v2/models/nope/infer", v2(JPEG), 404, "model 'nope': no such model"),
    "a version": ("/v2/models/scanloop/versions/1/infer", v2(JPEG), 404, "no versions"),
    "an explanation": ("/v1/models/scanloop:explain", v1(JPEG), 404, "no such endpoint"),
    "unloading": ("/v2/repository/models/scanloop/unload", {}, 403, "neither loaded nor unloaded"),
    "loading": ("/v2/repository/models/scanloop/load", {}, 403, "neither loaded nor unloaded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_gets_a_4xx_that_says_what_is_wrong(client: httpx.Client, name: str) -> None:
    path, body, status, message = REFUSED[name]
    payload = body if isinstance(body, bytes) else json.dumps(body, default=lambda value: value.item()).encode()
    answer = client.post(path, content=payload, headers=JSON)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert message in answer.json()["error"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/octet-stream", "inference-header-content-length": "2"},
        {"content-type": "application/cloudevents+json"},
        JSON | {"ce-id": "1", "ce-source": "a", "ce-type": "b", "ce-specversion": "1.0"},
    ],
)
def test_another_content_type_is_refused(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = client.post(path, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "must be application/json" in answer.json()["error"]


def test_a_charset_beside_the_content_type_is_fine(client: httpx.Client) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    for path, body in ((V1, v1(JPEG)), (V2, v2(JPEG))):
        assert client.post(path, content=json.dumps(body).encode(), headers=headers).status_code == 200


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_whether_or_not_it_says_its_length(
    client: httpx.Client, path: str, chunked: bool
) -> None:
    body = b" " * (5 * 2**20)
    parts = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    answer = client.post(path, content=parts if chunked else body, headers=JSON)
    assert answer.status_code == 413
    assert "larger than 4 MiB" in answer.json()["error"]


def test_a_refusal_counts_no_prediction_of_its_good_images(client: httpx.Client) -> None:
    before = [metric(client, f'scanloop_predictions_total{{label="{label}"}}') for label in ("cancer", "normal")]
    assert client.post(V1, json=v1(JPEG, b"hello")).status_code == 400
    assert [
        metric(client, f'scanloop_predictions_total{{label="{label}"}}') for label in ("cancer", "normal")
    ] == before


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
def test_a_loopback_host_needs_no_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANLOOP_TOKEN", raising=False)
    assert read_token(host, None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])
def test_a_public_host_without_a_token_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANLOOP_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="token"):
        read_token(host, None)
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
    (line,) = process.stderr.splitlines()
    assert "nowhere: no such bundle" in line


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
    before = metric(server.client, 'request_preprocess_seconds_count{model_name="scanloop"}')
    worker.start()
    while metric(server.client, 'request_preprocess_seconds_count{model_name="scanloop"}') == before:
        assert worker.is_alive()
    server.process.send_signal(signal.SIGTERM)
    worker.join()
    assert answers == [200]
    assert server.process.wait(timeout=30) in {0, -signal.SIGTERM}
    assert "Traceback" not in server.log.read_text()
