"""TLS: the server's certificate, and clients that must bring one; over HTTP and gRPC."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
from served import JPEG, V1, free_port, launch, v1, wait_until_ready
from tiny_bundle import new_bundle


@dataclass(frozen=True)
class Secured:
    port: int
    grpc_port: int
    authority: Path
    client: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("reader@hospital.example")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    port, grpc_port = free_port(), free_port()
    options = {
        "--port": port, "--grpc-port": grpc_port, "--tls-certificate": folder / "server.pem",
        "--tls-key": folder / "server.key", "--tls-clients": folder / "ca.pem",
    }  # fmt: skip
    given = [str(one) for pair in options.items() for one in pair]
    found = Secured(port, grpc_port, folder / "ca.pem", folder / "client.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SCANLOOP_TOKEN", raising=False)
        process = launch(folder / "log", new_bundle(folder / "bundle"), *given, opened=False)
    try:
        with httpx.Client(verify=trusting(found, True), trust_env=False, base_url=f"https://127.0.0.1:{port}") as probe:
            wait_until_ready(probe, process, folder / "log")
        yield found
    finally:
        process.kill()
        process.wait()


def trusting(secured: Secured, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(secured.authority))
    if with_certificate:
        context.load_cert_chain(str(secured.client))
    return context


def test_a_client_with_a_certificate_is_answered_without_a_token(secured: Secured) -> None:
    with httpx.Client(verify=trusting(secured, True), trust_env=False) as client:
        answer = client.post(f"https://127.0.0.1:{secured.port}{V1}", json=v1(JPEG))
    assert answer.status_code == 200


@pytest.mark.parametrize("stranger", ["no certificate", "one of somebody else's"])
def test_a_client_without_a_certificate_of_ours_gets_no_connection(
    secured: Secured, stranger: str, tmp_path: Path
) -> None:
    context = trusting(secured, False)
    if stranger != "no certificate":
        other = trustme.CA().issue_cert("reader@elsewhere.example")
        other.private_key_and_cert_chain_pem.write_to_path(tmp_path / "other.pem")
        context.load_cert_chain(str(tmp_path / "other.pem"))
    with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://127.0.0.1:{secured.port}/v2/health/ready")
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(f"http://127.0.0.1:{secured.port}/v2/health/ready")


@pytest.mark.parametrize("certified", [True, False])
def test_grpc_asks_for_the_same_certificate(secured: Secured, certified: bool) -> None:
    pair = {}
    if certified:
        pem = secured.client.read_bytes()
        pair = {"private_key": pem, "certificate_chain": pem[pem.index(b"-----BEGIN CERTIFICATE") :]}
    credentials = grpc.ssl_channel_credentials(secured.authority.read_bytes(), **pair)
    with grpc.secure_channel(f"127.0.0.1:{secured.grpc_port}", credentials) as channel:
        service = stubs.GRPCInferenceServiceStub(channel)
        if certified:
            assert service.ServerMetadata(pb.ServerMetadataRequest(), timeout=10).name == "scanloop"
            return
        with pytest.raises(grpc.RpcError) as refused:
            service.ServerLive(pb.ServerLiveRequest(), timeout=5)
    assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
