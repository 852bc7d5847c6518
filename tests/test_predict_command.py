"""The client against a real server, and against one that refuses, forgets and fails."""

import inspect
import os
import random
import signal
import ssl
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from served import TOKEN, Server
from stub_server import DIGEST, Script, files_in, probability, stub
from tiny_bundle import draw_slices, to_jpeg
from typer.testing import CliRunner

from scanloop.bundle.predict import Bundle
from scanloop.cli import app
from scanloop.errors import ConfigError, ServiceError
from scanloop.predict_command import TOKEN_VARIABLE, predict

BATCH = ("--batch", "4", "--protocol", "v1")
KILLS = int(os.environ.get("SCANLOOP_KILLS", "1"))


def run(endpoint: str, output: Path, *rest: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["predict", "--endpoint", endpoint, "--output", str(output), *map(str, rest)])
    return done.exit_code, done.output, done.exception


def rows(path: Path) -> pd.DataFrame:
    frame = pq.read_table(path).to_pandas()
    frame["cancer"] = [dict(pairs).get("cancer", np.nan) for pairs in frame["probabilities"]]
    return frame


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_real_images_get_the_bundles_probabilities_and_an_unreadable_one_its_fault(
    protocol: str, server: Server, bundle: Bundle, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with tarfile.open(data_dir / "brain_mri_oc.tar") as archive:
        names = [name for name in archive.getnames() if name.lower().endswith(".jpg")][:10]
        payloads = [archive.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    for number, payload in enumerate(payloads):
        (tmp_path / f"{number}.jpg").write_bytes(payload)
    (tmp_path / "cut.jpg").write_bytes(payloads[0][:300])
    code, told, _ = run(
        str(server.client.base_url), tmp_path / "out.parquet", "--protocol", protocol, "--batch", 4, tmp_path,
        tmp_path / "gone.png",
    )  # fmt: skip
    found = rows(tmp_path / "out.parquet").set_index("uri")
    assert code == 1
    read = found.loc[[str(tmp_path / f"{number}.jpg") for number in range(10)]]
    np.testing.assert_allclose(read["cancer"], bundle.predict_bytes(payloads)[:, 0], rtol=0, atol=1e-6)
    assert set(read["model_digest"]) == {bundle.digest}
    assert read["fault"].isna().all()
    bad = found.loc[[str(tmp_path / "cut.jpg"), str(tmp_path / "gone.png")]]
    assert bad["abstained"].tolist() == ["bad_image", "bad_image"]
    assert "truncated" in bad["fault"].iloc[0]
    assert "missing_file" in bad["fault"].iloc[1]
    assert "could not be read: 2" in told


def test_the_two_protocols_say_the_same_of_each_image_in_both_kinds_of_table(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    for number, image in enumerate(draw_slices(9)):
        (tmp_path / f"{number}.jpg").write_bytes(to_jpeg(image))
    tables = []
    for protocol in ("v1", "v2"):
        output = tmp_path / f"{protocol}.csv"
        options = ("--protocol", protocol, "--batch", "9", "--token-file", tmp_path / "token")
        assert run(str(server.client.base_url), output, *options, tmp_path / "*.jpg")[0] == 0
        tables.append(pd.read_csv(output))
    exact = ["uri", "label", "set", "abstained", "model_digest"]
    pd.testing.assert_frame_equal(tables[0][exact], tables[1][exact])
    for column in ("confidence", "strangeness"):  # batches of other sizes add up in another order
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=0, atol=1e-6)
    assert len(tables[0]) == 9


def test_a_busy_server_is_asked_again_after_the_time_it_names_and_a_lost_connection_too(tmp_path: Path) -> None:
    def misbehave(number: int, files: list[bytes]) -> tuple[int, dict[str, str]] | str | None:
        return {0: (429, {"Retry-After": "1"}), 1: (503, {}), 2: "drop", 3: (500, {})}.get(number)  # type: ignore[return-value]

    script, paths = Script(misbehave), files_in(tmp_path / "in", 6)
    with stub(script) as endpoint:
        code, told, error = run(endpoint, tmp_path / "out.parquet", *BATCH, "--in-flight", "1", tmp_path / "in")
    assert code == 0, (told, error)
    found = rows(tmp_path / "out.parquet")
    assert found["uri"].tolist() == [str(path) for path in paths]
    np.testing.assert_allclose(found["cancer"], [probability(path.read_bytes()) for path in paths])
    assert set(found["model_digest"]) == {DIGEST}
    assert script.asked[1][0] - script.asked[0][0] >= 1.0


def test_a_server_that_stays_away_ends_the_run_and_the_next_one_asks_for_the_rest_alone(tmp_path: Path) -> None:
    away = Script(lambda number, _: None if number < 2 else (503, {"Retry-After": "0"}))
    paths, output = files_in(tmp_path / "in", 20), tmp_path / "out.parquet"
    with stub(away) as endpoint:
        options = (*BATCH, "--in-flight", "1", "--attempts", "3")
        code, _, error = run(endpoint, output, *options, tmp_path / "in")
    assert isinstance(error, ServiceError)
    assert "3 attempts" in str(error)
    kept = rows(output)["uri"].tolist()
    assert kept == [str(path) for path in paths[:8]]
    back = Script()
    with stub(back) as endpoint:
        code, told, _ = run(endpoint, output, *BATCH, tmp_path / "in")
    assert code == 0
    assert sorted(back.files) == sorted(path.read_bytes() for path in paths[8:])
    assert rows(output)["uri"].tolist() == [str(path) for path in paths]
    assert "8 had a row before" in told


def test_an_image_that_the_server_refuses_or_fails_at_spoils_no_other_and_is_asked_again_only_if_it_failed(
    tmp_path: Path,
) -> None:
    paths, output = files_in(tmp_path / "in", 16), tmp_path / "out.parquet"
    large, poison = paths[5].read_bytes(), paths[11].read_bytes()

    def misbehave(_: int, files: list[bytes]) -> tuple[int, dict[str, str]] | None:
        return (413, {}) if large in files else (500, {}) if poison in files else None

    with stub(Script(misbehave)) as endpoint:
        code, told, _ = run(endpoint, output, "--batch", "8", "--protocol", "v1", tmp_path / "in")
    assert code == 1
    found = rows(output)
    assert sorted(found["uri"]) == sorted(str(path) for path in paths if path != paths[11])
    assert found.loc[found["fault"].notna(), "uri"].tolist() == [str(paths[5])]
    assert "without an answer: 1" in told
    script = Script()
    with stub(script) as endpoint:
        assert run(endpoint, output, *BATCH, tmp_path / "in")[0] == 0
    assert script.files == [poison]


def test_several_requests_are_under_way_and_no_more_than_asked_for(tmp_path: Path) -> None:
    files_in(tmp_path / "in", 40)
    script = Script(seconds=0.05)
    with stub(script) as endpoint:
        code, *_ = run(endpoint, tmp_path / "out.csv", *BATCH, "--in-flight", "3", tmp_path / "in")
    assert code == 0
    assert script.most_at_once == 3


def test_the_token_comes_from_a_file_and_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files_in(tmp_path / "in", 1)
    (tmp_path / "token").write_text("very secret\n")
    script = Script(lambda *_: (401, {}))
    with caplog.at_level("DEBUG"), stub(script) as endpoint:
        options = (*BATCH, "--token-file", tmp_path / "token")
        _, told, error = run(endpoint, tmp_path / "out.csv", *options, tmp_path / "in")
    assert isinstance(error, ServiceError)
    assert script.asked[0][2]["Authorization"] == "Bearer very secret"
    assert "very secret" not in told + str(error) + caplog.text
    assert "token" not in inspect.signature(predict).parameters


@pytest.mark.parametrize("endpoint", ["localhost:80", "ftp://x", "http://user:word@host", "http://host?key=1"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(endpoint: str, tmp_path: Path) -> None:
    files_in(tmp_path / "in", 1)
    _, _, error = run(endpoint, tmp_path / "out.csv", tmp_path / "in")
    assert isinstance(error, ConfigError)
    assert "word" not in str(error)


def test_a_server_of_an_own_authority_that_asks_for_certificates_is_reached_with_both_alone(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    files_in(tmp_path / "in", 2)
    known = ("--ca-file", certificate)
    mine = ("--client-certificate", certificate, "--client-key", key)
    with stub(Script(), context) as endpoint:
        codes = [
            run(endpoint, tmp_path / "out.csv", *BATCH, "--attempts", "1", *options, tmp_path / "in")[0]
            for options in ((), known, mine, (*known, *mine))
        ]
    assert [code == 0 for code in codes] == [False, False, False, True]


def test_killed_at_any_instant_the_client_goes_on_and_ends_with_each_image_once(tmp_path: Path) -> None:
    paths, output = files_in(tmp_path / "in", 60), tmp_path / "out.parquet"
    script, instants = Script(seconds=0.02), random.Random(1)
    code = (
        "import scanloop.scoring.gathered as gathered, typer; gathered.PART_ROWS = 5\n"
        "from scanloop.predict_command import predict; typer.run(predict)"
    )
    with stub(script) as endpoint:
        options = ["--endpoint", endpoint, "--output", str(output), "--batch", "2", "--protocol", "v1"]
        command = [sys.executable, "-c", code, *options, "--in-flight", "1", str(tmp_path / "in")]
        for _ in range(KILLS):
            before = len(script.asked)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and len(script.asked) == before:
                time.sleep(0.005)
            time.sleep(instants.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True, capture_output=True)
    assert rows(output)["uri"].tolist() == [str(path) for path in paths]
    assert len(script.files) <= 60 + KILLS * (5 + 2 * 4)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".parts", ".tmp"))] == []
