"""Double reading in a real Label Studio, which this test starts and ends: our projects in, its export back."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from label_stores import enrol, write_queue
from test_label_command import ran

from scanloop.artifacts import read_table
from scanloop.config import IngestConfig, SyntheticSource
from scanloop.labelling.agreement import measure_agreement
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.progress import progress
from scanloop.labelling.store import open_store
from scanloop.labelling.waves import publish
from scanloop.steps.ingest import ingest

pytestmark = pytest.mark.integration

STARTS_WITHIN_SECONDS = 240
TOKEN = "0123456789abcdef" * 2 + "01234567"  # of a server that lives for one test
ANNA, BEN = "anna@example.org", "ben@example.org"


@dataclass
class LabelStudio:
    """A running server, and the folder whose files it may serve."""

    url: str
    files: Path

    def fetch(self, path: str) -> tuple[str, bytes]:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Token {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.headers["Content-Type"]), answer.read()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, headers=headers, data=payload)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def project(self, folder: Path, number: int) -> dict[int, int]:
        """Make a project of what was exported: numbers of its tasks there by ours."""
        config = (folder / "labelling_config.xml").read_text()
        made = self.call("POST", "/api/projects/", {"title": f"project {number}", "label_config": config})["id"]
        about = {"project": made, "path": str(folder), "title": "images", "use_blob_urls": True}
        self.call("POST", "/api/storages/localfiles", about)
        tasks = json.loads((folder / f"project-{number}.json").read_text())
        assert self.call("POST", f"/api/projects/{made}/import", tasks)["task_count"] == len(tasks)
        found = self.call("GET", f"/api/tasks?project={made}&page_size=-1")["tasks"]
        assert [one["data"] for one in sorted(found, key=lambda one: one["id"])] == [one["data"] for one in tasks]
        for one in found:
            kind, image = self.fetch(one["data"]["image"])
            assert kind == "image/png"
            assert image == (folder / "images" / f"task-{one['data']['task']:08d}.png").read_bytes()
        return {one["data"]["task"]: one["id"] for one in found}

    def annotate(self, task: int, choice: str, annotator: int) -> None:
        value = {"from_name": "answer", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        self.call("POST", f"/api/tasks/{task}/annotations/", {"result": [value], "completed_by": annotator})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    program = os.environ.get("LABEL_STUDIO_BIN") or shutil.which("label-studio")
    if program is None:
        pytest.skip("Label Studio is not here: install it into an environment of its own, and set LABEL_STUDIO_BIN")
    folder = tmp_path_factory.mktemp("label-studio")
    (folder / "files").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder / "files"),
        "COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    }  # fmt: skip
    command = [program, "start", "--no-browser", "--data-dir", str(folder / "data"), "-p", str(port)]
    command += ["--internal-host", "127.0.0.1", "--username", ANNA, "--password", "only-for-this-test-1"]
    command += ["--user-token", TOKEN, "--enable-legacy-api-token"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            found = LabelStudio(f"http://127.0.0.1:{port}", folder / "files")
            _wait(found, process, folder / "log")
            yield found
        finally:
            process.terminate()
            process.wait(30)


def _wait(server: LabelStudio, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            server.call("GET", "/api/users/")
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def test_two_annotators_read_blind_in_two_projects_and_their_readings_come_back(
    server: LabelStudio, tmp_path: Path
) -> None:
    catalog, url = tmp_path / "catalog", f"sqlite:///{tmp_path / 'labels.db'}"
    source = SyntheticSource(seed=3, slices=20, size_px=32, labelled=8)
    ingest(IngestConfig(seed=3, source=source, short_side_px=32), output=catalog)
    ids = read_table(catalog, "manifest")["slice_id"].tolist()[:6]
    store = open_store(url)
    publish(store, write_queue(tmp_path, ids, budget=5.5), catalog, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    folder = server.files / "wave1"
    export = ("label-studio", "export", "--store", url, "--catalog", catalog, "--output", folder)
    ran(*export, "--projects", 2)
    numbers = {one["email"]: one["id"] for one in server.call("GET", "/api/users/")}
    ben = {"email": BEN, "username": "ben", "password": "only-for-this-test-2"}
    numbers[BEN] = server.call("POST", "/api/users/", ben)["id"]
    given = {
        ANNA: ["lesion", "normal", "normal", "unsure", "bad image", "lesion"],
        BEN: ["lesion", "lesion", "normal", "unsure", "bad image", "lesion"],
    }
    for number, (annotator, choices) in enumerate(given.items(), start=1):
        tasks = server.project(folder, number)
        for ours, choice in zip(sorted(tasks), choices, strict=True):
            server.annotate(tasks[ours], choice, numbers[annotator])
    projects = sorted(one["id"] for one in server.call("GET", "/api/projects/?page_size=10")["results"])
    readers = [
        word for email, name in ((ANNA, "anna"), (BEN, "ben")) for word in ("--reader", f"{numbers[email]}={name}")
    ]
    told = []
    for project in [*projects, *projects]:
        _, payload = server.fetch(f"/api/projects/{project}/export?exportType=JSON")
        (tmp_path / "export.json").write_bytes(payload)
        told.append(ran("label-studio", "import", tmp_path / "export.json", *readers, "--store", url))
    assert told[0] == "6 readings added, 0 known before, 0 refused"
    assert told[1].startswith("4 readings added, 0 known before, 2 refused"), "the budget holds ten readings"
    assert "the budget of wave 1 holds no further reading" in told[1]
    assert told[2].startswith("0 readings added, 6 known before, 0 refused")
    assert "0 readings added, 4 known before, 2 refused" in told[3]
    state = progress(store, "anna")
    assert state is not None
    assert (state.spent_cents, state.held_cents, state.mine) == (550, 0, 6)
    found = measure_agreement(store)
    assert {one.name: one.readings for one in found.readers} == {"anna": 6, "ben": 4}
    assert (found.images, found.pairs[0].share) == (4, 0.75)
