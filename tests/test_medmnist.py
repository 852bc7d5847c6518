"""MedMNIST by download: from a server that can be told to misbehave, from a folder, and never a wrong file."""

import functools
import hashlib
import io
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_proxy import FaultyProxy, faulty
from pydantic import ValidationError
from test_readers import arrays

from scanloop.archive.readers import medmnist, read
from scanloop.archive.readers.medmnist import fetch, published
from scanloop.config import IngestConfig, MedmnistSource
from scanloop.errors import ArchiveError, StorageError
from scanloop.storage import download
from scanloop.storage.patience import Patience


class Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, whole or in the ranges that are asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            return super().do_GET()
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        payload = path.read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(payload) - 1}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(payload)
        return None

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def payload() -> bytes:
    file = io.BytesIO()
    noise = {f"{part}_images": np.random.default_rng(0).integers(0, 255, (4, 60, 60), np.uint8) for part in ("train",)}
    np.savez(file, **arrays(**noise))
    return file.getvalue()


@pytest.fixture
def server(tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setattr(Patience, "_wait", lambda self, number, asked: 0.0)
    monkeypatch.setattr(download, "RANGE_BYTES", 4000)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "pneumoniamnist.npz").write_bytes(payload)
    handler = functools.partial(Ranges, directory=str(tmp_path / "web"))
    files = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=files.serve_forever, args=(0.05,), daemon=True).start()
    with faulty(f"http://127.0.0.1:{files.server_address[1]}") as proxy:
        yield proxy
    files.shutdown()
    files.server_close()


def source(base: str, tmp_path: Path, **changes: Any) -> MedmnistSource:
    return MedmnistSource(base_url=base, cache_dir=str(tmp_path / "cache"), labelled=2, **changes)


def md5(payload: bytes) -> str:
    return hashlib.md5(payload).hexdigest()


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else []


@pytest.mark.parametrize("fault", ["slow_down", "reset", "cut", "refuse_connection"])
def test_a_set_comes_whole_whatever_befalls_the_first_answers(
    server: FaultyProxy, tmp_path: Path, payload: bytes, fault: str
) -> None:
    server.plan("GET", "pneumoniamnist", "", fault, fault)
    path = fetch(source(server.url, tmp_path), md5(payload))
    assert path.read_bytes() == payload
    before = len(server.seen)
    assert fetch(source(server.url, tmp_path), md5(payload)) == path
    assert len(server.seen) == before, "what is in the cache is not fetched"


def test_a_download_that_broke_off_goes_on_where_it_stood(server: FaultyProxy, tmp_path: Path, payload: bytes) -> None:
    server.plan("GET", "pneumoniamnist", "", "", *["refuse_connection"] * 40)  # the client tries by itself, too
    with pytest.raises(StorageError, match="the connection failed"):
        fetch(source(server.url, tmp_path), md5(payload))
    (part,) = (tmp_path / "cache").iterdir()
    there = part.stat().st_size
    assert 0 < there < len(payload)
    server.calm()
    before = len(server.requests("GET", ""))
    assert fetch(source(server.url, tmp_path), md5(payload)).read_bytes() == payload
    assert len(server.requests("GET", "")) - before <= -(-(len(payload) - there) // 4000) + 1


def test_a_file_with_another_md5_is_refused_and_removed(server: FaultyProxy, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="its MD5 is not 28209eda62fecd6e6a2d98b1501bb15f: it was removed here"):
        list(read(IngestConfig(source=source(server.url, tmp_path))))
    assert cached(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: FaultyProxy, tmp_path: Path, payload: bytes) -> None:
    path = fetch(source(server.url, tmp_path), md5(payload))
    path.write_bytes(payload[:-1])
    assert fetch(source(server.url, tmp_path), md5(payload)).read_bytes() == payload


def test_a_missing_file_says_how_to_do_without_the_network(server: FaultyProxy, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"put pneumoniamnist_64\.npz \(MD5 .*\) into a folder, and set"):
        list(read(IngestConfig(source=source(server.url, tmp_path, size_px=64))))
    with pytest.raises(StorageError, match=r"the connection failed .*7 attempts"):
        fetch(source("http://127.0.0.1:9", tmp_path), "0" * 32)


def test_a_file_larger_than_any_of_its_kind_is_not_fetched(
    server: FaultyProxy, tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medmnist, "MOST_BYTES", 1000)
    with pytest.raises(ArchiveError, match="are no pneumoniamnist"):
        fetch(source(server.url, tmp_path), md5(payload))
    assert cached(tmp_path) == []


def test_a_folder_will_do_and_the_images_are_those_of_the_npz(
    server: FaultyProxy, tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = published()
    table["pneumoniamnist"]["md5"][28] = md5(payload)
    monkeypatch.setattr(medmnist, "published", lambda: table)
    found = [list(read(IngestConfig(source=source(base, tmp_path)))) for base in (server.url, str(tmp_path / "web"))]
    shutil.rmtree(tmp_path / "cache")
    found.append(list(read(IngestConfig(source=source(str(tmp_path / "web"), tmp_path)))))
    names = [[(raw.uri, raw.label, raw.hidden_label, raw.split) for raw in one] for one in found]
    assert names[0] == names[1] == names[2]
    assert {raw.label or raw.hidden_label for raw in found[0]} == {"normal", "pneumonia"}
    assert np.array_equal(found[0][0].payload, np.load(io.BytesIO(payload))["test_images"][0])


def test_the_published_table_names_both_sets_in_every_size() -> None:
    table = published()
    assert set(table) == {"breastmnist", "pneumoniamnist"}
    for facts in table.values():
        assert set(facts["md5"]) == {28, 64, 128, 224}
        assert all(len(value) == 32 and int(value, 16) >= 0 for value in facts["md5"].values())
        assert len(facts["classes"]) == 2


def test_a_real_set_that_was_rebuilt_is_refused_by_its_md5(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    shutil.copy(data_dir / "medmnist" / "pneumoniamnist_rebuilt.npz", tmp_path / "web" / "pneumoniamnist.npz")
    with pytest.raises(StorageError, match="its MD5 is not"):
        list(read(IngestConfig(source=source(str(tmp_path / "web"), tmp_path))))


@pytest.mark.parametrize("url", ["http://zenodo.org/x", "https://ann:w8-kO@host/x", "https://host/x?token=w8-kO"])
def test_an_open_or_secret_address_is_a_fault_of_the_configuration(url: str) -> None:
    with pytest.raises(ValidationError) as error:
        MedmnistSource(base_url=url)
    assert "w8-kO" not in str(error.value)
