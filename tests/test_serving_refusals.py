"""What the server refuses, and how it says so."""

import json

import httpx
import numpy as np
import pytest
from served import JPEG, MAX_BATCH, V1, V2, metric, pixels, v1, v2
from tiny_bundle import to_jpeg

JSON = {"content-type": "application/json"}

REFUSED = {
    "broken JSON, V1": (V1, b"{", 400, "the body is not JSON"),
    "broken JSON, V2": (V2, b"{", 400, "the body is not JSON"),
    "no body, V1": (V1, b"", 400, "the body is not JSON"),
    "no body, V2": (V2, b"", 400, "the body is not JSON"),
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
    "no inputs": (V2, {}, 400, "inputs: must be a list of one tensor"),
    "empty inputs": (V2, {"inputs": []}, 400, "inputs: must hold one tensor"),
    "two inputs": (V2, {"inputs": v2(JPEG)["inputs"] * 2}, 400, "inputs: must hold one tensor"),
    "no data": (
        V2,
        {"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES"}]},
        400,
        "inputs[0].data: must be a list of values",
    ),
    "bad base64, V2": (V2, v2(data=["a%b"], shape=[1]), 400, "inputs[0].data[0]: not plain base64"),
    "no text": (V2, v2(data=[1], shape=[1]), 400, "inputs[0].data[0]: must be the base64 text"),
    "no image, V2": (V2, v2(JPEG, b"hello"), 400, "inputs[0].data[1]: not_an_image"),
    "empty shape": (V2, v2(JPEG, shape=[]), 400, "inputs[0].shape: must be positive"),
    "negative shape": (V2, v2(JPEG, shape=[-1]), 400, "inputs[0].shape: must be positive"),
    "wrong shape": (V2, v2(JPEG, shape=[2]), 400, "inputs[0].data: 1 values do not fill the shape [2]"),
    "wrong type": (V2, v2(JPEG, datatype="FP32"), 400, "inputs[0].shape: must be [n, 3, s, s] for FP32"),
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
    "binary outputs of no kind": (
        V2,
        v2(JPEG) | {"parameters": {"binary_data_output": "yes"}},
        400,
        "parameters.binary_data_output: must be",
    ),
    "another model, V1": ("/v1/models/nope:predict", v1(JPEG), 404, "model 'nope': no such model"),
    "another model, V2": ("/v2/models/nope/infer", v2(JPEG), 404, "model 'nope': no such model"),
    "a version": ("/v2/models/scanloop/versions/1/infer", v2(JPEG), 404, "no versions"),
    "a wrong number of neighbours": (
        V1,
        v1(JPEG) | {"parameters": {"neighbours": -1}},
        400,
        "parameters.neighbours: must",
    ),
    "parameters no object": (V1, v1(JPEG) | {"parameters": 3}, 400, "parameters: must be an object"),
    "another operation": ("/v1/models/scanloop:generate", v1(JPEG), 404, "no such endpoint"),
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
        {"content-type": "application/octet-stream"},
        {"content-type": "application/cloudevents+json"},
        JSON | {"ce-id": "1", "ce-source": "a", "ce-type": "b", "ce-specversion": "1.0"},
    ],
)
def test_another_content_type_is_refused(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = client.post(path, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "must be application/json" in answer.json()["error"]


@pytest.mark.parametrize("stated", ["9" * 5000, "-1", "2.5", "٣", ""])
def test_a_length_that_is_none_is_refused(client: httpx.Client, stated: str) -> None:
    headers = JSON | {"inference-header-content-length": stated.encode()}
    answer = client.post(V2, json=v2(JPEG), headers=headers)
    assert answer.status_code in {400, 431}
    assert answer.status_code == 431 or "must be a whole number of bytes" in answer.json()["error"]


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
