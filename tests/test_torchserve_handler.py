"""The handler as TorchServe's worker calls it: its own loader reads the archive, its own context takes the answers."""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import encode, pixels, v1, v2
from tiny_bundle import draw_slices, to_jpeg

from scanloop.bundle.engines.engine import Engine, Outputs
from scanloop.bundle.predict import Bundle
from scanloop.bundle.torchserve import Settings, export
from serving.deciding import Decider

loader = pytest.importorskip("ts.model_loader", reason="torchserve is not installed (extra torchserve)")
context_of = pytest.importorskip("ts.context")

MOST = 8
JPEGS = [to_jpeg(image) for image in draw_slices(8)]
JSON = "application/json"


class Silent:
    """Takes metrics as TorchServe's cache does."""

    def __init__(self) -> None:
        self.counted: dict[str, float] = {}

    def set_request_ids(self, _: object) -> None:
        pass

    def add_counter(self, name: str, value: float) -> None:
        self.counted[name] = self.counted.get(name, 0) + value


class Worker:
    """What TorchServe's worker does between its socket and the handler."""

    def __init__(self, service: Any) -> None:
        self.service, self.context = service, service.context

    def predict(self, *bodies: object, headers: dict[str, str] | None = None) -> list[tuple[int, Any]]:
        """Status and body of each request of one batch."""
        self.context.request_processor = [context_of.RequestProcessor(dict(headers or {})) for _ in bodies]
        answers = self.service._entry_point([{"body": body} for body in bodies], self.context)
        assert len(answers) == len(bodies)
        return [
            (self.context.get_response_status(index)[0], json.loads(answer) if answer[:1] == b"{" else answer)
            for index, answer in enumerate(answers)
        ]


@pytest.fixture(scope="module")
def worker(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    scratch = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(export(served_folder, Settings(max_images=12), scratch / "export")) as archive:
        archive.extractall(scratch)
    sys.path.insert(0, str(scratch))
    metrics = Silent()
    service = loader.TsModelLoader().load("scanloop", str(scratch), "handler.py", None, MOST, None, True, metrics)
    yield Worker(service)
    sys.path.remove(str(scratch))
    del sys.modules["handler"]


def probabilities(body: Any, bundle: Bundle) -> np.ndarray:
    if "outputs" in body:
        outputs = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in body["outputs"]}
        return outputs["probabilities"]
    return np.array([[row["probabilities"][name] for name in bundle.classes] for row in body["predictions"]])


def raw(body: object) -> bytearray:
    return bytearray(json.dumps(body).encode())


@pytest.mark.parametrize("parsed", [True, False])
def test_both_protocols_in_one_batch_get_the_bundles_probabilities(
    worker: Worker, bundle: Bundle, parsed: bool
) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (2, 40, 52, 3), dtype=np.uint8))
    bodies = [v1(*JPEGS[:3]), v2(*JPEGS[3:5]), pixels(images), {"id": "seven"} | v2(JPEGS[5])]
    answers = worker.predict(*(body if parsed else raw(body) for body in bodies))
    assert [status for status, _ in answers] == [200] * 4
    expected = [bundle.predict_bytes(JPEGS[:3]), bundle.predict_bytes(JPEGS[3:5]), bundle.predict(images)]
    for (_, body), wanted in zip(answers[:3], expected, strict=True):
        np.testing.assert_allclose(probabilities(body, bundle), wanted, rtol=0, atol=1e-5)
    last = answers[3][1]
    assert (last["id"], last["model_name"], last["model_version"]) == ("seven", "scanloop", bundle.digest[:12])


def test_the_networks_own_input_gets_the_bundles_probabilities(worker: Worker, bundle: Bundle) -> None:
    images = draw_slices(3)
    given = bundle.preprocess(images)
    tensor = {"name": "image", "datatype": "FP32", "shape": list(given.shape), "data": given.ravel().tolist()}
    ((status, body),) = worker.predict({"inputs": [tensor]})
    assert status == 200
    np.testing.assert_allclose(probabilities(body, bundle), bundle.predict(list(images)), rtol=0, atol=1e-5)


def test_raw_tensors_come_and_go_as_the_binary_extension_says(worker: Worker, bundle: Bundle) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 30, 31), dtype=np.uint8)
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, 30, 31],
        "parameters": {"binary_data_size": image.size},
    }
    output = {"name": "probabilities", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    worker.context.request_processor = [context_of.RequestProcessor(headers)]
    (answer,) = worker.service._entry_point([{"body": head + image.tobytes()}], worker.context)
    json_bytes = int(worker.context.get_response_headers(0)["inference-header-content-length"])
    assert worker.context.get_response_content_type(0) == "application/octet-stream"
    assert json.loads(answer[:json_bytes])["model_version"] == bundle.digest[:12]
    np.testing.assert_allclose(
        np.frombuffer(answer[json_bytes:], "<f8"), bundle.predict([image[0]])[0], rtol=0, atol=1e-5
    )


def test_eight_requests_are_one_forward_pass_and_a_bad_image_fails_its_own_request_alone(
    worker: Worker, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    run_squares = type(bundle.engine).run_squares

    def counted(engine: Engine, squares: np.ndarray) -> Outputs:
        ran.append(len(squares))
        return run_squares(engine, squares)

    monkeypatch.setattr(type(bundle.engine), "run_squares", counted)
    bodies = [v1(payload) for payload in JPEGS]
    bodies[4] = v1(JPEGS[4], b"no image at all")
    answers = worker.predict(*map(raw, bodies))
    assert [status for status, _ in answers] == [200] * 4 + [400] + [200] * 3
    assert answers[4][1]["error"].startswith("instances[1].image.b64: not_an_image")
    assert ran == [7]
    found = np.concatenate([probabilities(body, bundle) for status, body in answers if status == 200])
    np.testing.assert_allclose(found, bundle.predict_bytes(JPEGS[:4] + JPEGS[5:]), rtol=0, atol=1e-5)


def test_a_batch_of_many_images_runs_in_parts_that_the_engine_knows(worker: Worker, bundle: Bundle) -> None:
    (first, second) = worker.predict(v1(*JPEGS, *JPEGS[:4]), v2(*JPEGS[2:7]))
    np.testing.assert_allclose(
        probabilities(first[1], bundle), bundle.predict_bytes([*JPEGS, *JPEGS[:4]]), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(probabilities(second[1], bundle), bundle.predict_bytes(JPEGS[2:7]), rtol=0, atol=1e-5)


def test_a_request_that_bears_bad_images_gets_its_other_answers(worker: Worker, bundle: Bundle) -> None:
    body = v1(JPEGS[0], b"text", JPEGS[1]) | {"parameters": {"bad_images": "abstain", "neighbours": 2}}
    ((status, answer),) = worker.predict(body)
    assert status == 200
    assert [row["abstained"] == "bad_image" for row in answer["predictions"]] == [False, True, False]
    assert "not_an_image" in answer["predictions"][1]["fault"]
    assert [len(row["neighbours"]) for row in answer["predictions"]] == [2, 0, 2]
    good = np.array([[row["probabilities"][name] for name in bundle.classes] for row in answer["predictions"]])[[0, 2]]
    np.testing.assert_allclose(good, bundle.predict_bytes(JPEGS[:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{nope", 400, "the body is not JSON"),
        (b"", 400, "the body is not JSON"),
        ([1, 2], 400, "body: must be a JSON object"),
        ({}, 400, "instances: must be a list"),
        ({"instances": [{"b64": 7}]}, 400, "instances[0].b64"),
        ({"instances": [{"b64": "data:image/png;base64,AAAA"}]}, 400, "instances[0].b64: not plain base64"),
        ({"inputs": []}, 400, "inputs: must hold one tensor"),
        (v2(JPEGS[0], datatype="INT64"), 400, "inputs[0].datatype"),
        (pixels([np.zeros((2, 2), np.uint8)]), 400, "inputs[0].data[0]: too_small"),
        ({"instances": [{"b64": encode(JPEGS[0])}] * 13}, 413, "instances: 13 images; at most 12"),
        (v1(JPEGS[0]) | {"parameters": {"explain": True}}, 400, "parameters.explain"),
        (v1(JPEGS[0]) | {"parameters": {"neighbours": -1}}, 400, "parameters.neighbours"),
    ],
)
def test_a_faulty_request_is_refused_by_the_name_of_its_field(
    worker: Worker, body: object, status: int, named: str
) -> None:
    refused, answered = worker.predict(body, v1(JPEGS[0]))
    assert refused[0] == status
    assert refused[1]["error"].startswith(named)
    assert "Traceback" not in refused[1]["error"]
    assert answered[0] == 200


def test_our_own_failure_is_told_without_its_text_and_spares_the_other_requests(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, calls = Decider.prepare, iter(range(9))

    def fail_once(decider: Decider, sent: Any) -> Any:
        if next(calls) == 0:
            raise RuntimeError("secret of the house")
        return prepare(decider, sent)

    monkeypatch.setattr(Decider, "prepare", fail_once)
    failed, answered = worker.predict(v1(JPEGS[0]), v1(JPEGS[1]))
    assert failed == (500, {"error": "internal error; the server's log says more"})
    assert answered[0] == 200


def test_requests_and_batches_are_counted(worker: Worker) -> None:
    counted = worker.context.metrics.counted
    before = dict(counted)
    worker.predict(v1(JPEGS[0]), v1(JPEGS[1]), b"{")
    grown = {name: counted[name] - before.get(name, 0) for name in counted}
    assert grown == {"scanloop_handler_batches_total": 1, "scanloop_handler_requests_total": 3}
