"""One image, one answer: whatever protocol, client and engine carries it, its probabilities are the bundle's."""

import asyncio
import io
import json
import socket
import struct
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from served import V1, V2, Server, encode, start, v1, v1_probabilities, v2, v2_outputs
from tiny_bundle import PREPROCESS, draw_slices, new_facts, to_jpeg

from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle

EXACT = {"onnxruntime": "float32", "openvino": "float32", "torch": "float32"}
COARSE = {"openvino bf16": ("openvino", "bf16"), "torch bf16": ("torch", "bf16")}
ENGINES = {name: (name, precision) for name, precision in EXACT.items()} | COARSE
FLOAT32 = 1e-5


@dataclass(frozen=True)
class Endpoint:
    """A server with both of its ports."""

    server: Server
    grpc: str

    @property
    def url(self) -> str:
        return str(self.server.client.base_url).rstrip("/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def endpoints(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Endpoint]]:
    """A server for each engine, started together."""

    def started(name: str) -> Endpoint:
        engine, precision = ENGINES[name]
        port = _free_port()
        chosen = ("--engine", engine, "--precision", precision, "--threads", "1", "--grpc-port", str(port))
        return Endpoint(start(tmp_path_factory.mktemp("server"), served_folder, *chosen), f"127.0.0.1:{port}")

    with ThreadPoolExecutor(len(ENGINES)) as pool, ExitStack() as stack:
        found = dict(zip(ENGINES, pool.map(started, ENGINES), strict=True))
        for one in found.values():
            stack.callback(one.server.process.wait)
            stack.callback(one.server.process.kill)
            stack.callback(one.server.client.close)
        yield found


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


def drawn() -> list[bytes]:
    return [to_jpeg(image) for image in draw_slices(10, seed=3)]


def gate_of(name: str) -> float:
    return new_facts().gates[ENGINES[name][1]] if name in COARSE else FLOAT32


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_ask_gets_the_bundles_own_probabilities(
    endpoints: dict[str, Endpoint], bundle: Bundle, name: str, way: Callable[..., np.ndarray]
) -> None:
    expected = bundle.predict_bytes(drawn())
    assert np.ptp(expected[:, 0]) > 0.2, "answers that are all alike agree with anything"
    np.testing.assert_allclose(way(endpoints[name], drawn(), bundle), expected, rtol=0, atol=gate_of(name))


@pytest.mark.parametrize("name", ENGINES)
def test_real_images_get_the_bundles_own_probabilities(
    endpoints: dict[str, Endpoint], bundle: Bundle, data_dir: Path, name: str
) -> None:
    payloads = real_jpegs(data_dir)
    expected = bundle.predict_bytes(payloads)
    assert (len(payloads), np.ptp(expected[:, 0]) > 0.05) == (20, True)
    for way in WAYS:
        np.testing.assert_allclose(way(endpoints[name], payloads, bundle), expected, rtol=0, atol=gate_of(name))


def real_jpegs(data_dir: Path) -> list[bytes]:
    payloads = []
    for name in ("brain_mri_oc.tar", "kermany_cxr_224.tar"):
        with tarfile.open(data_dir / name) as tar:
            members = [one for one in tar if one.name.lower().endswith((".jpg", ".jpeg"))]
            payloads += [tar.extractfile(one).read() for one in members[:: len(members) // 10][:10]]
    return payloads


def test_pixels_and_the_networks_own_input_get_what_their_image_gets(
    endpoints: dict[str, Endpoint], bundle: Bundle
) -> None:
    images = np.random.default_rng(5).integers(0, 256, (6, 40, 44, 3), dtype=np.uint8)
    expected = bundle.predict(list(images))
    inputs = PREPROCESS(list(images))
    for name, endpoint in endpoints.items():
        for datatype, values in (("UINT8", images), ("FP32", inputs)):
            tensor = {"name": "image", "shape": list(values.shape), "datatype": datatype}
            answer = endpoint.server.client.post(V2, json={"inputs": [tensor | {"data": values.ravel().tolist()}]})
            found = v2_outputs(answer)["probabilities"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=gate_of(name), err_msg=f"{name} {datatype}")


def test_engines_agree_in_process_at_every_batch_size(served_folder: Path, bundle: Bundle) -> None:
    payloads = drawn()
    expected = np.concatenate([bundle.predict_bytes([payload]) for payload in payloads])
    for name, (engine, precision) in ENGINES.items():
        other = read_bundle(served_folder, Wanted(engine, precision, threads=1))
        for size in (1, 3, 10):
            found = other.predict_bytes(payloads, batch_size=size)
            np.testing.assert_allclose(found, expected, rtol=0, atol=gate_of(name), err_msg=f"{name}, {size}")


def test_a_frame_of_a_dicom_object_gets_what_its_picture_as_png_gets(
    endpoints: dict[str, Endpoint], bundle: Bundle, samples: Path
) -> None:
    """Grey of 8 bits without a window: the PNG's pixels are the object's own."""
    import pydicom

    found = 0
    for path in sorted(samples.rglob("*.dcm")):
        try:
            read = pydicom.dcmread(path)
            pixels = read.pixel_array
        except Exception:  # noqa: S112  broken on purpose
            continue
        plain = read.get("PhotometricInterpretation") == "MONOCHROME2" and "WindowCenter" not in read
        unscaled = float(read.get("RescaleSlope", 1)) == 1 and not any("LUT" in key for key in read.dir())
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or not (plain and unscaled) or read.get("BitsStored") != 8:
            continue
        if pixels.min() or pixels.max() != 255:
            continue  # shown stretched to the whole range, of which a PNG knows nothing
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels).save(sink, "PNG")
        answers = by_v1(endpoints["onnxruntime"], [path.read_bytes(), sink.getvalue()], bundle)
        np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=5e-3, err_msg=path.name)
        found += 1
    assert found, "no sample says what its pixels are"
