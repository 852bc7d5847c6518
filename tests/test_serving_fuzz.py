"""What strangers send the server: never a fault of its own, never a word too much, and its memory stays what it was."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import fuzzing
import grpc
import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
from served import JPEG, V1, V2, Server, free_port, start, v1, v2

LEAKS = re.compile(r"Traceback|File \"|/tmp/|/root|/home|site-packages|\.py\b|0x[0-9a-f]{6,}")
NAMED = re.compile(
    r"^(instances|inputs|outputs|parameters|id|body|Inference-Header-Content-Length|raw_input_contents)\b[\w.\[\]]*: "
    r"|^the body (is not JSON|is larger than)",
    re.IGNORECASE,
)
"""An error begins with the field that is wrong; where no field can be read, it is the body."""

GROWTH = 0.05


@pytest.fixture(scope="module")
def fuzzed(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    port = free_port()
    options = ("--engine", "onnxruntime", "--threads", "1", "--max-request-mib", "8", "--grpc-port", str(port))
    server = start(tmp_path_factory.mktemp("server"), served_folder, *options)
    yield server, f"127.0.0.1:{port}"
    server.client.close()
    server.process.kill()
    server.process.wait()


def resident_mib(server: Server) -> float:
    """Memory of the server's own process."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


def send_all(server: Server, sent: Iterable[fuzzing.Sent], found: Counter[int]) -> None:
    """Send each; fail on a fault of the server, on a leak, and on an error that names no field."""
    for one in sent:
        answer = server.client.post(one.path, content=one.body, headers=one.headers)
        found[answer.status_code] += 1
        assert answer.status_code < 500, (one.kind, one.body[:200], answer.text)
        check_words(one.kind, answer)


def check_words(kind: str, answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    assert list(answer.json()) == ["error"], (kind, answer.text)
    error = answer.json()["error"]
    assert not LEAKS.search(error), (kind, error)
    assert answer.status_code not in {400, 413} or NAMED.search(error), (kind, error)
    assert len(error) < 600, (kind, error)


def test_no_request_finds_a_fault_or_a_leak(fuzzed: tuple[Server, str]) -> None:
    found: Counter[int] = Counter()
    send_all(fuzzed[0], itertools.islice(fuzzing.requests(0), 600), found)
    assert found[200] > 20, "some get through"
    assert found[400] > 200, found


def test_every_dicom_sample_gets_an_answer_or_a_reason(fuzzed: tuple[Server, str], data_dir: Path) -> None:
    found: Counter[int] = Counter()
    payloads = fuzzing.dicom(data_dir / "dicom_samples.tar")
    assert len(payloads) == 284
    send_all(fuzzed[0], (fuzzing.image_request("DICOM", one, 2) for one in payloads), found)
    assert found[200] > 80, found


REQUEST = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"enum": ["BYTES", "UINT8", "FP32", "FP16", "BOOL"]},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array"},
                    "parameters": {"type": "object"},
                },
                "required": ["name", "datatype", "shape"],
            },
        },
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
INSTANCE = {"type": "object", "properties": {"b64": {"type": "string"}, "frame": {}, "image": {"type": "object"}}}


def described() -> dict[str, object]:
    """The protocols, looser than `/openapi.json` has them: most of what this allows is wrong."""
    answers = {"responses": {"default": {"description": "an answer"}}}
    v1_body = {"type": "object", "properties": {"instances": {"type": "array", "items": INSTANCE}, "parameters": {}}}
    paths = {V1: v1_body, V2: REQUEST, V1.replace("predict", "explain"): v1_body}
    operations = {
        path: {"post": {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} | answers}
        for path, body in paths.items()
    }
    return {"openapi": "3.1.0", "info": {"title": "serving", "version": "1"}, "paths": operations}


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.integration)])
def test_no_request_in_the_shape_of_the_protocols_finds_a_fault_or_a_leak(
    fuzzed: tuple[Server, str], examples: int
) -> None:
    server, found = fuzzed[0], Counter()

    def call(case: schemathesis.Case) -> None:
        answer = server.client.post(case.path, json=case.body)
        found[answer.status_code] += 1
        assert answer.status_code < 500, (case.path, case.body, answer.text)
        check_words(case.path, answer)

    for result in schemathesis.openapi.from_dict(described()).get_all_operations():
        strategy = result.ok().as_strategy()
        settings(
            max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate], database=None,
            suppress_health_check=list(HealthCheck),
        )(given(case=strategy)(call))()  # fmt: skip
    assert found[400] > examples, found


def test_malformed_grpc_requests_are_refused_by_name(fuzzed: tuple[Server, str]) -> None:
    async def outcome(stub: stubs.GRPCInferenceServiceStub, request: pb.ModelInferRequest) -> tuple[str, str]:
        try:
            await stub.ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        return "OK", ""

    async def ask() -> list[tuple[str, str]]:
        async with grpc.aio.insecure_channel(fuzzed[1]) as channel:
            stub = stubs.GRPCInferenceServiceStub(channel)
            return [await outcome(stub, request) for request in malformed(np.random.default_rng(0))]

    found = asyncio.run(ask())
    for code, details in found:
        assert code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}, details
        assert not LEAKS.search(details), details
        assert code != "INVALID_ARGUMENT" or NAMED.search(details), details
    codes = Counter(code for code, _ in found)
    assert (codes["OK"], codes["NOT_FOUND"]) == (1, 1), codes


def malformed(draw: np.random.Generator) -> Iterator[pb.ModelInferRequest]:
    """Requests that break one thing each."""
    good = pb.ModelInferRequest(model_name="scanloop")
    good.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(JPEG)
    yield good
    yield pb.ModelInferRequest()
    yield pb.ModelInferRequest(model_name="scanloop")
    for shape in ([], [0], [-1], [2], [2**62], [1, 1, 1, 1, 1]):
        for datatype in ("BYTES", "UINT8", "FP32", "FP16", "", "\u202e"):
            request = pb.ModelInferRequest(model_name="scanloop")
            request.inputs.add(name="image", datatype=datatype, shape=shape)
            request.raw_input_contents.append(draw.bytes(16))
            yield request
            del request.raw_input_contents[:]
            request.inputs[0].contents.fp32_contents.extend([float("nan")] * 4)
            yield request
    request = pb.ModelInferRequest(model_name="scanloop")
    request.CopyFrom(good)
    request.raw_input_contents.extend([b"", b""])
    yield request
    request = pb.ModelInferRequest(model_name="scanloop")
    request.CopyFrom(good)
    request.outputs.add(name="nope")
    yield request
    request.outputs[0].name = "probabilities"
    request.parameters["neighbours"].int64_param = -5
    yield request


def counted(server: Server) -> Counter[str]:
    """Counters of the server, by series; of histograms how many there were and their sum."""
    series = re.findall(r"^(scanloop_\S+(?:_total|_count|_sum)\S*) (\S+)$", server.client.get("/metrics").text, re.M)
    return Counter({name: int(float(value)) for name, value in series if "seconds_sum" not in name})


def test_metrics_count_what_was_sent_and_nothing_else(fuzzed: tuple[Server, str]) -> None:
    server, good, bad = fuzzed[0], *(pb.ModelInferRequest(model_name="scanloop") for _ in range(2))
    good.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(JPEG)

    async def by_grpc() -> None:
        async with grpc.aio.insecure_channel(fuzzed[1]) as channel:
            stub = stubs.GRPCInferenceServiceStub(channel)
            for _ in range(3):
                await stub.ModelInfer(good)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ModelInfer(bad)

    before = counted(server)
    for _ in range(5):
        assert server.client.post(V1, json=v1(JPEG, JPEG)).status_code == 200
    for _ in range(4):
        assert server.client.post(V2, json=v2(JPEG)).status_code == 200
    for _ in range(2):
        assert server.client.post(V1, json=v1(JPEG, b"hello")).status_code == 400
    assert server.client.post(V2, json={"inputs": []}).status_code == 400
    asyncio.run(by_grpc())
    found = counted(server) - before
    requests = {
        (protocol, outcome): found[f'scanloop_requests_total{{outcome="{outcome}",protocol="{protocol}"}}']
        for protocol in ("v1", "v2", "grpc")
        for outcome in ("answered", "refused")
    }
    assert requests == {
        ("v1", "answered"): 5, ("v1", "refused"): 2, ("v2", "answered"): 4, ("v2", "refused"): 1,
        ("grpc", "answered"): 3, ("grpc", "refused"): 1,
    }  # fmt: skip
    images = 5 * 2 + 4 + 3
    assert sum(value for name, value in found.items() if name.startswith("scanloop_predictions_total")) == images
    assert sum(value for name, value in found.items() if "confidence_count" in name) == images
    assert images <= found["scanloop_batch_images_sum"] <= images + 2, "of a refused request an image may have run"
    assert sum(value for name, value in found.items() if name.startswith("scanloop_rejected_requests_total")) == 4
    assert sum(value for name, value in found.items() if "request_seconds_count" in name) == 16


def test_after_all_that_it_answers_and_nothing_failed_in_its_log(fuzzed: tuple[Server, str]) -> None:
    assert fuzzed[0].client.post(V1, json=v1(JPEG)).status_code == 200
    assert "Traceback" not in fuzzed[0].log.read_text()


@pytest.mark.integration
def test_ten_thousand_requests_leave_its_memory_as_it_was(
    fuzzed: tuple[Server, str], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, found = fuzzed[0], Counter()
    payloads = fuzzing.dicom(data_dir / "dicom_samples.tar")
    draw = np.random.default_rng(2)
    shaken = (fuzzing.image_request("a mutated DICOM", fuzzing.mutated(one, draw), 2) for one in payloads)
    samples = (fuzzing.image_request("DICOM", one, 2) for one in payloads)
    send_all(server, itertools.chain(samples, itertools.islice(fuzzing.requests(1), 1500)), found)
    before = resident_mib(server)
    send_all(server, itertools.chain(shaken, itertools.islice(fuzzing.requests(2), 8000)), found)
    after = resident_mib(server)
    with capsys.disabled():
        print(f"\n{sum(found.values())} requests: {dict(found)}; {before:.0f} MiB before, {after:.0f} after")
    assert sum(found.values()) > 10_000
    assert after < before * (1 + GROWTH), (before, after)
