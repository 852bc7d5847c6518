"""One image, one answer: whatever protocol, client and engine carries it, its probabilities are the bundle's."""

import asyncio
import io
import json
import socket
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pydicom
import pytest
import torch
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from served import V1, V2, Server, encode, start, v1, v1_probabilities, v2, v2_outputs
from tiny_bundle import PREPROCESS, draw_slices, new_bundle, new_facts, to_jpeg
from torch import nn

from scanloop.bundle.abstention import Familiar, fit_abstention
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.exemplars import new_exemplars
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.calibration.strangeness import unit_rows
from scanloop.embedding.encoders import new_encoder

EXACT = {"onnxruntime": "float32", "openvino": "float32", "torch": "float32"}
COARSE = {"openvino bf16": ("openvino", "bf16"), "torch bf16": ("torch", "bf16")}
ENGINES = {name: (name, precision) for name, precision in EXACT.items()} | COARSE
FLOAT32 = 1e-5


class SmallNetwork(nn.Module):
    """An encoder that torch's engine knows by name, and a head that tells the drawn slices apart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = new_encoder("smallcnn", 0)
        torch.manual_seed(1)
        self.head = nn.Linear(self.encoder.dimension, 2)
        with torch.no_grad():
            self.head.bias.zero_()
            logits = self.head(self.encoder.eval()(torch.from_numpy(PREPROCESS(draw_slices(10, seed=3)))))
            margins = logits[:, 0] - logits[:, 1]
            self.head.weight.mul_(3 / margins.std())
            self.head.bias[0] -= margins.mean() * 3 / margins.std()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of the bundle that the other tests serve, whose encoder has no name."""
    network = SmallNetwork().eval()
    with torch.inference_mode():
        vectors = network.encoder(torch.from_numpy(PREPROCESS(draw_slices(80, seed=9)))).numpy()
    familiar = Familiar(
        np.array([f"familiar {row:02d}" for row in range(80)]),
        unit_rows(vectors).astype(np.float16),
        np.arange(80) % 2 == 0,
    )
    changes = {
        "encoder": "smallcnn",
        "abstention": fit_abstention(familiar, 0.05, None),
        "exemplars": new_exemplars([f"slice {row:03d}" for row in range(80)], np.arange(80) % 2, vectors),
    }
    return new_bundle(tmp_path_factory.mktemp("bundle"), network, new_facts(**changes))


@dataclass(frozen=True)
class Endpoint:
    """A server with both of its ports."""

    server: Server
    grpc: str
    gate: float

    @property
    def url(self) -> str:
        return str(self.server.client.base_url).rstrip("/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def endpoint(
    request: pytest.FixtureRequest, served_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """A server with the engine that the test names."""
    (engine, precision), port = ENGINES[request.param], _free_port()
    chosen = ("--engine", engine, "--precision", precision, "--threads", "1", "--grpc-port", str(port))
    server = start(tmp_path_factory.mktemp("server"), served_folder, *chosen)
    yield Endpoint(server, f"127.0.0.1:{port}", gate_of(request.param))
    server.client.close()
    server.process.kill()
    server.process.wait()


def by_v1(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    return v1_probabilities(endpoint.server.client.post(V1, json=v1(*payloads)), bundle)


def by_v2_json(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    return v2_outputs(endpoint.server.client.post(V2, json=v2(*payloads)))["probabilities"]


def by_v2_binary(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    """Written by hand, from the extension's text."""
    raw = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)
    tensor = {"name": "image", "shape": [len(payloads)], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    answer = endpoint.server.client.post(V2, content=head + raw, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert (output["datatype"], output["parameters"]["binary_data_size"]) == ("FP64", len(answer.content) - length)
    return np.frombuffer(answer.content[length:], "<f8").reshape(output["shape"])


def _request(payloads: list[bytes], *, binary: bool) -> InferRequest:
    values = payloads if binary else [encode(payload) for payload in payloads]
    tensor = InferInput("image", [len(payloads)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    return InferRequest("scanloop", [tensor])


def _by_rest_client(endpoint: Endpoint, payloads: list[bytes], *, binary: bool) -> np.ndarray:
    async def ask() -> np.ndarray:
        async with httpx.AsyncHTTPTransport() as transport:
            client = InferenceRESTClient(RESTConfig(protocol="v2", transport=transport))
            answer = await client.infer(endpoint.url, _request(payloads, binary=binary), model_name="scanloop")
            (found,) = [output for output in answer.outputs if output.name == "probabilities"]
            return found.as_numpy()

    return asyncio.run(ask())


def by_kserves_rest_client(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    return _by_rest_client(endpoint, payloads, binary=False)


def by_kserves_rest_client_raw(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    return _by_rest_client(endpoint, payloads, binary=True)


def _by_grpc_client(endpoint: Endpoint, request: InferRequest) -> np.ndarray:
    async def ask() -> np.ndarray:
        client = InferenceGRPCClient(endpoint.grpc)
        try:
            answer = await client.infer(request)
        finally:
            await client.close()
        (found,) = [output for output in answer.outputs if output.name == "probabilities"]
        return found.as_numpy()

    return asyncio.run(ask())


def by_kserves_grpc_client_raw(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    return _by_grpc_client(endpoint, _request(payloads, binary=True))


def by_kserves_grpc_client_contents(endpoint: Endpoint, payloads: list[bytes], bundle: Bundle) -> np.ndarray:
    contents = pb.InferTensorContents(bytes_contents=payloads)
    return _by_grpc_client(
        endpoint, InferRequest("scanloop", [InferInput("image", [len(payloads)], "BYTES", contents)])
    )


WAYS: list[Callable[[Endpoint, list[bytes], Bundle], np.ndarray]] = [
    by_v1,
    by_v2_json,
    by_v2_binary,
    by_kserves_rest_client,
    by_kserves_rest_client_raw,
    by_kserves_grpc_client_raw,
    by_kserves_grpc_client_contents,
]


each_engine = pytest.mark.parametrize(
    "endpoint",
    [pytest.param(name, marks=[] if name == "onnxruntime" else [pytest.mark.integration]) for name in ENGINES],
    indirect=True,
    scope="module",
)


def drawn() -> list[bytes]:
    return [to_jpeg(image) for image in draw_slices(10, seed=3)]


def gate_of(name: str) -> float:
    return new_facts().gates[ENGINES[name][1]] if name in COARSE else FLOAT32


@each_engine
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_ask_gets_the_bundles_own_probabilities(
    endpoint: Endpoint, bundle: Bundle, way: Callable[..., np.ndarray]
) -> None:
    expected = bundle.predict_bytes(drawn())
    assert np.ptp(expected[:, 0]) > 0.2, "answers that are all alike agree with anything"
    np.testing.assert_allclose(way(endpoint, drawn(), bundle), expected, rtol=0, atol=endpoint.gate)


@each_engine
def test_real_images_get_the_bundles_own_probabilities(endpoint: Endpoint, bundle: Bundle, data_dir: Path) -> None:
    payloads = real_jpegs(data_dir)
    expected = bundle.predict_bytes(payloads)
    assert (len(payloads), np.ptp(expected[:, 0]) > 0.05) == (20, True)
    for way in WAYS:
        np.testing.assert_allclose(way(endpoint, payloads, bundle), expected, rtol=0, atol=endpoint.gate)


def real_jpegs(data_dir: Path) -> list[bytes]:
    payloads = []
    for name in ("brain_mri_oc.tar", "kermany_cxr_224.tar"):
        with tarfile.open(data_dir / name) as tar:
            members = [one for one in tar if one.name.lower().endswith((".jpg", ".jpeg"))]
            payloads += [tar.extractfile(one).read() for one in members[:: len(members) // 10][:10]]
    return payloads


@each_engine
def test_pixels_and_the_networks_own_input_get_what_their_image_gets(endpoint: Endpoint, bundle: Bundle) -> None:
    images = np.random.default_rng(5).integers(0, 256, (6, 40, 44, 3), dtype=np.uint8)
    expected = bundle.predict(list(images))
    inputs = PREPROCESS(list(images))
    for datatype, values in (("UINT8", images), ("FP32", inputs)):
        tensor = {"name": "image", "shape": list(values.shape), "datatype": datatype}
        answer = endpoint.server.client.post(V2, json={"inputs": [tensor | {"data": values.ravel().tolist()}]})
        found = v2_outputs(answer)["probabilities"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=endpoint.gate, err_msg=datatype)


def test_engines_agree_in_process_at_every_batch_size(served_folder: Path, bundle: Bundle) -> None:
    payloads = drawn()
    expected = np.concatenate([bundle.predict_bytes([payload]) for payload in payloads])
    for name, (engine, precision) in ENGINES.items():
        other = read_bundle(served_folder, Wanted(engine, precision, threads=1))
        for size in (1, 3, 10):
            found = other.predict_bytes(payloads, batch_size=size)
            np.testing.assert_allclose(found, expected, rtol=0, atol=gate_of(name), err_msg=f"{name}, {size}")


@pytest.mark.parametrize("endpoint", ["onnxruntime"], indirect=True)
def test_a_frame_of_a_dicom_object_gets_what_its_picture_as_png_gets(
    endpoint: Endpoint, bundle: Bundle, samples: Path
) -> None:
    """Grey of 8 bits over the whole range, without a window or a table: the PNG's pixels are the object's own."""
    found = []
    for path in sorted(samples.rglob("*.dcm")):
        if (pixels := _plain_pixels(path)) is None:
            continue
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels).save(sink, "PNG")
        answers = by_v1(endpoint, [path.read_bytes(), sink.getvalue()], bundle)
        np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=FLOAT32, err_msg=path.name)
        found.append(path.name)
    assert found, "no sample says what its pixels are"


def _plain_pixels(path: Path) -> np.ndarray | None:
    try:
        read = pydicom.dcmread(path)
        pixels = read.pixel_array
    except Exception:
        return None  # broken on purpose
    if read.get("PhotometricInterpretation") != "MONOCHROME2" or read.get("BitsStored") != 8 or pixels.ndim != 2:
        return None
    mapped = "WindowCenter" in read or float(read.get("RescaleSlope", 1)) != 1 or "VOILUTSequence" in read
    return None if mapped or pixels.min() or pixels.max() != 255 else pixels
