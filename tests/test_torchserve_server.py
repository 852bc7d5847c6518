"""TorchServe on Java behind our guard, as clients meet it, with settings that would open it had the guard no say."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import V1, V2, metric, pixels, v1, v1_probabilities, v2, v2_outputs
from tiny_bundle import draw_slices, to_jpeg
from torchserve_run import TOKEN, Run, descendants, missing, torchserve

from scanloop.bundle.predict import Bundle
from scanloop.bundle.torchserve import CONFIG, Settings, read_properties, written

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

JPEGS = [to_jpeg(image) for image in draw_slices(8)]
DELAY_MS = 500


def open_up(export: Path) -> None:
    """Write into the settings what TorchServe's own security advice warns of."""
    wishes = {
        "inference_address": "http://0.0.0.0:18085",
        "management_address": "http://0.0.0.0:18086",
        "metrics_address": "http://0.0.0.0:18087",
        "grpc_inference_address": "0.0.0.0",
        "grpc_management_address": "0.0.0.0",
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "allowed_urls": "file://.*|http(s)?://.*",
    }
    settings = export / CONFIG
    settings.write_bytes(written(read_properties(settings) | wishes))


@pytest.fixture(scope="module")
def run(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    scratch = tmp_path_factory.mktemp("torchserve")
    settings = Settings(delay_ms=DELAY_MS, max_images=24, max_request_mib=2)
    with torchserve(served_folder, scratch, settings=settings, change=open_up) as started:
        yield started


def listening(pids: list[int]) -> dict[str, set[int]]:
    """Addresses of the TCP ports on which processes listen, by address."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
            except FileNotFoundError:
                continue
    found: dict[str, set[int]] = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.setdefault(socket.inet_ntop(family, b"".join(words)), set()).add(int(port, 16))
    return found


def test_both_protocols_give_the_bundles_probabilities(run: Run, bundle: Bundle) -> None:
    expected = bundle.predict_bytes(JPEGS)
    assert np.ptp(expected[:, 0]) > 0.3
    one_body = run.client.post(V1, json=v1(*JPEGS))
    np.testing.assert_allclose(v1_probabilities(one_body, bundle), expected, rtol=0, atol=1e-5)
    outputs = v2_outputs(run.client.post(V2, json=v2(*JPEGS)))
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=0, atol=1e-5)
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8))
    outputs = v2_outputs(run.client.post(V2, json=pixels(images)))
    np.testing.assert_allclose(outputs["probabilities"], bundle.predict(images), rtol=0, atol=1e-5)


def test_raw_tensors_pass_the_guard_both_ways(run: Run, bundle: Bundle) -> None:
    given = bundle.preprocess(draw_slices(2))
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(given.shape),
        "parameters": {"binary_data_size": given.nbytes},
    }
    asked = {"inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    head = json.dumps(asked).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = run.client.post(V2, content=head + given.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    values = np.frombuffer(answer.content[int(answer.headers["inference-header-content-length"]) :], "<f8")
    expected = bundle.predict(list(draw_slices(2)))
    np.testing.assert_allclose(values.reshape(-1, 2), expected, rtol=0, atol=1e-5)


def test_eight_at_once_are_one_batch_and_a_bad_one_fails_alone(run: Run, bundle: Bundle) -> None:
    labels = '{ModelName="scanloop",Level="Model",Hostname="' + socket.gethostname() + '",}'
    counts = [f"scanloop_handler_{name}_total{labels}" for name in ("requests", "batches")]
    before = [metric(run.client, series) for series in counts]
    bodies = [v1(payload) if number % 2 else v2(payload) for number, payload in enumerate(JPEGS)]
    bodies[5] = v1(b"no image")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: run.client.post(V1 if "instances" in body else V2, json=body), bodies))
    assert [answer.status_code for answer in answers] == [200] * 5 + [400] + [200] * 2
    assert answers[5].json()["error"].startswith("instances[0].image.b64: not_an_image")
    found = [
        v2_outputs(answer)["probabilities"] if "outputs" in answer.json() else v1_probabilities(answer, bundle)
        for answer in answers
        if answer.status_code == 200
    ]
    expected = bundle.predict_bytes(JPEGS[:5] + JPEGS[6:])
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-5)
    requests, batches = (metric(run.client, series) - was for series, was in zip(counts, before, strict=True))
    assert requests == 8
    assert batches <= 2  # the first may have left alone if the others were slow to come


def test_nothing_but_health_is_answered_without_our_token(run: Run) -> None:
    with httpx.Client(base_url=run.client.base_url, trust_env=False) as stranger:
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/v1/models/scanloop", "/v2/models/scanloop/ready"):
            assert stranger.get(path).status_code == 200, path
        key = json.loads((run.folder / "key_file.json").read_text())["inference"]["key"]
        for authorization in ("", f"Bearer {key}", "Bearer wrong", f"Basic {TOKEN}"):
            answer = stranger.post(V1, json=v1(JPEGS[0]), headers={"authorization": authorization})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert stranger.get("/metrics").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predictions/scanloop"),
        ("POST", "/models?url=http://127.0.0.1/evil.mar"),
        ("DELETE", "/models/scanloop"),
        ("PUT", "/models/scanloop?min_worker=0"),
        ("GET", "/models"),
        ("GET", "/token?type=inference"),
        ("GET", "/ping"),
        ("GET", "/api-description"),
        ("POST", "/v1/models/scanloop:explain"),
        ("POST", "/v1/models/other:predict"),
    ],
)
def test_no_other_endpoint_of_torchserves_is_reached_even_with_the_token(run: Run, method: str, path: str) -> None:
    answer = run.client.request(method, path, json=v1(JPEGS[0]))
    assert answer.status_code in {404, 405}
    assert run.ready()


def test_torchserve_listens_on_loopback_alone_and_asks_for_its_own_keys(run: Run) -> None:
    found = listening([run.guard.pid, *descendants(run.guard.pid)])
    assert set(found) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    own = {int(run.client.base_url.port or 0)}
    inner = set().union(*found.values()) - own
    assert len(inner) == 5  # inference, management, metrics, and two of gRPC
    stated = read_properties(run.folder / "config.properties")
    inference, management = stated["inference_address"], stated["management_address"]
    for url in (f"{inference}/ping", f"{management}/models", f"{management}/token?type=inference"):
        assert httpx.get(url, trust_env=False).json()["type"] == "InvalidKeyException"
    body = v1(JPEGS[0])
    assert httpx.post(inference + V1, json=body, trust_env=False).json()["type"] == "InvalidKeyException"
    keys = json.loads((run.folder / "key_file.json").read_text())
    allowed = {"authorization": f"Bearer {keys['management']['key']}"}
    register = httpx.post(f"{management}/models", params={"url": "scanloop.mar"}, headers=allowed, trust_env=False)
    assert register.json()["type"] == "MethodNotAllowedException"


def test_torchserves_grpc_answers_nobody_without_its_keys(run: Run) -> None:
    grpc = pytest.importorskip("grpc")
    stated = read_properties(run.folder / "config.properties")
    for port, method in (
        ("grpc_inference_port", "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"),
        ("grpc_management_port", "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"),
    ):
        with grpc.insecure_channel(f"127.0.0.1:{stated[port]}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(b"", timeout=10)
        assert refused.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


def test_its_keys_lie_where_only_we_can_read_and_never_in_the_log(run: Run) -> None:
    assert run.folder.stat().st_mode & 0o077 == 0
    assert (run.folder / "key_file.json").stat().st_mode & 0o077 == 0
    log = run.log.read_text()
    keys = json.loads((run.folder / "key_file.json").read_text())
    assert not [kind for kind, stated in keys.items() if stated["key"] in log]
    assert TOKEN not in log
    environment = Path(f"/proc/{run.java()}/environ").read_bytes()
    assert b"SCANLOOP_TOKEN" not in environment


def test_a_body_beyond_the_limit_is_refused_before_torchserve_sees_it(run: Run) -> None:
    answer = run.client.post(V1, content=b" " * (2 * 2**20 + 1), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, "the body is larger than 2 MiB; send fewer images")
    assert run.client.post(V1, json=v1(*JPEGS * 4)).status_code == 413
    assert run.client.post(V1, content=b"{", headers={"content-type": "text/plain"}).status_code == 415


def test_metadata_and_metrics_are_the_models_own(run: Run, bundle: Bundle) -> None:
    metadata = run.client.get("/v2/models/scanloop").json()
    assert metadata["versions"] == [bundle.digest[:12]]
    assert metadata["outputs"][0] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    text = run.client.get("/metrics").text
    assert "ts_inference_requests_total" in text
    assert "scanloop_request_seconds_count" in text
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(helps) == len(set(helps))
