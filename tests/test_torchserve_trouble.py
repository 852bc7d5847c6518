"""TorchServe when its worker dies, hangs or never comes, when its keys expire, and when all of it is told to end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import LARGE, V1, v1, v1_probabilities
from tiny_bundle import draw_slices, to_jpeg
from torchserve_run import CHECKOUT, Run, command_of, descendants, free_port, missing, torchserve

from scanloop.bundle.predict import Bundle
from scanloop.bundle.torchserve import CONFIG, Settings, export, read_properties, written

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

JPEG = to_jpeg(draw_slices(1)[0])
RECOVERY_SECONDS = 60
TIMEOUT_SECONDS = 3


def expire_soon(exported: Path) -> None:
    """Keys that hold for a minute, the least that TorchServe knows."""
    path = exported / CONFIG
    path.write_bytes(written(read_properties(path) | {"token_expiration_min": "1"}))


@pytest.fixture(scope="module")
def run(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    scratch, options = tmp_path_factory.mktemp("torchserve"), ("--timeout-seconds", str(TIMEOUT_SECONDS))
    with torchserve(served_folder, scratch, *options, change=expire_soon) as started:
        yield started


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """How long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it never came"
        time.sleep(0.05)
    return time.monotonic() - started


def load(run: Run, answers: list[httpx.Response | Exception], stop: threading.Event, body: dict[str, object]) -> None:
    with httpx.Client(base_url=run.client.base_url, headers=run.client.headers, timeout=60, trust_env=False) as client:
        while not stop.is_set():
            try:
                answers.append(client.post(V1, json=body))
            except httpx.TransportError as error:
                answers.append(error)
                return


def under_load(
    run: Run, event: Callable[[], None], body: dict[str, object], clients: int = 8
) -> list[httpx.Response | Exception]:
    """Answers of clients that ask all the time, while something happens."""
    answers: list[httpx.Response | Exception] = []
    stop = threading.Event()
    threads = [threading.Thread(target=load, args=(run, answers, stop, body)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answers) > clients, 30)
    event()
    stop.set()
    for thread in threads:
        thread.join()
    return answers


def test_a_killed_worker_is_told_at_once_and_the_next_one_serves(run: Run, bundle: Bundle) -> None:
    def kill_and_wait() -> None:
        (worker,) = run.workers()
        os.kill(worker, signal.SIGKILL)
        assert wait_for(lambda: not run.ready(), 5) < 2
        refused = run.client.post(V1, json=v1(JPEG))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert "come back" in refused.json()["error"]
        wait_for(run.ready, RECOVERY_SECONDS)
        assert run.workers() != [worker]

    answers = under_load(run, kill_and_wait, v1(JPEG))
    statuses = [answer.status_code for answer in answers if isinstance(answer, httpx.Response)]
    assert len(statuses) == len(answers), "a connection broke"
    assert set(statuses) == {200, 503}
    found = v1_probabilities(run.client.post(V1, json=v1(JPEG)), bundle)
    np.testing.assert_allclose(found, bundle.predict_bytes([JPEG]), rtol=0, atol=1e-5)


def test_a_worker_that_hangs_costs_a_503_in_time_and_nothing_is_sent_to_it_until_it_answers_again(run: Run) -> None:
    (worker,) = run.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answer = run.client.post(V1, json=v1(JPEG))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert TIMEOUT_SECONDS <= time.monotonic() - started < TIMEOUT_SECONDS + 2
        assert not run.ready()
        started = time.monotonic()
        assert run.client.post(V1, json=v1(JPEG)).status_code == 503
        assert time.monotonic() - started < 1
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for(run.ready, RECOVERY_SECONDS)
    assert run.client.post(V1, json=v1(JPEG)).status_code == 200


def test_predictions_go_on_while_torchserves_keys_expire(run: Run) -> None:
    def keys() -> dict[str, dict[str, str]]:
        try:
            return json.loads((run.folder / "key_file.json").read_text())
        except json.JSONDecodeError:
            return {}

    first = keys()

    def outlive() -> None:
        wait_for(lambda: bool(keys()) and keys()["inference"] != first["inference"], 65)
        time.sleep(5)

    answers = under_load(run, outlive, v1(JPEG), clients=2)
    assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} == {200}
    assert len(answers) > 100
    with httpx.Client(trust_env=False) as stale:
        url = read_properties(run.folder / "config.properties")["inference_address"]
        old = {"authorization": f"Bearer {first['inference']['key']}"}
        assert stale.post(url + V1, json=v1(JPEG), headers=old).json()["type"] == "InvalidKeyException"


def test_sigterm_answers_what_was_accepted_and_leaves_no_process(served_folder: Path, tmp_path: Path) -> None:
    with torchserve(served_folder, tmp_path, settings=Settings(delay_ms=200)) as run:
        started = [run.guard.pid, *descendants(run.guard.pid)]
        assert len(started) >= 3

        def terminate() -> None:
            run.guard.send_signal(signal.SIGTERM)
            run.guard.wait(30)

        answers = under_load(run, terminate, v1(*[LARGE] * 8), clients=6)
        folder = run.folder
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} == {200}
    assert all(isinstance(error, httpx.ConnectError) for error in refused), refused
    assert run.guard.returncode == 0
    wait_for(lambda: not [pid for pid in started if "torchserve" in command_of(pid) or "ts/" in command_of(pid)], 15)
    assert not folder.exists()
    assert "Traceback" not in run.log.read_text()


def test_when_the_guard_is_killed_torchserve_ends_as_well(served_folder: Path, tmp_path: Path) -> None:
    with torchserve(served_folder, tmp_path) as run:
        started = [run.java(), *run.workers()]
        assert len(started) == 2
        run.guard.kill()
        run.guard.wait()
        wait_for(lambda: not any(map(command_of, started)), 15)


def test_a_model_that_no_worker_loads_ends_the_server_with_its_reason_in_the_log(
    served_folder: Path, tmp_path: Path
) -> None:
    archive = export(served_folder, Settings(), tmp_path)
    with zipfile.ZipFile(archive) as whole:
        content = {name: whole.read(name) for name in whole.namelist()}
    content["bundle/model.onnx"] += b"\0"
    with zipfile.ZipFile(archive, "w") as broken:
        for name, payload in content.items():
            broken.writestr(name, payload)
    command = [sys.executable, "-m", "serving.torchserve", "--store", str(tmp_path)]
    command += ["--port", str(free_port()), "--start-seconds", "25", "--open"]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 1
    assert "model.onnx is not the file that bundle.json promises" in ended.stdout
    assert "no worker has predicted" in ended.stderr
