"""What a list of an archive's files costs in memory, and what a full disk says."""

import errno
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from scanloop.archive import journal
from scanloop.archive.readers.files import list_files, read_bytes
from scanloop.archive.readers.folder import read_folder
from scanloop.config import IngestConfig
from scanloop.errors import ArtifactError
from scanloop.provenance import Source, source_digest
from scanloop.sources import FolderSource, SyntheticSource
from scanloop.steps.ingest import ingest

FILES = 2000


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for row in range(FILES):
        path = tmp_path / ("labelled/a" if row % 10 == 0 else "unlabelled") / f"patient{row // 4:07d}_{row:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def bytes_a_file(work: Callable[[], object], *, at_peak: bool) -> float:
    tracemalloc.start()
    try:
        held = work()
        now, peak = tracemalloc.get_traced_memory()
        assert held
        return (peak if at_peak else now) / FILES
    finally:
        tracemalloc.stop()


def test_a_listed_file_takes_a_few_hundred_bytes_until_it_is_read(archive: Path) -> None:
    source = FolderSource(path=str(archive), deidentify=False, patient_pattern=r"(patient\d+)_")
    list_files(archive)  # what is made once is there
    assert bytes_a_file(lambda: list_files(archive), at_peak=False) < 400
    images = read_folder(source)
    assert bytes_a_file(lambda: next(images), at_peak=False) < 450


def test_the_digest_of_a_folder_does_not_grow_with_it(archive: Path) -> None:
    source_digest(Source(str(archive)))
    most = 300 + len(str(archive))  # one folder's names, each with its path
    assert bytes_a_file(lambda: source_digest(Source(str(archive))), at_peak=True) < most


def test_a_name_that_is_no_unicode_is_read_where_it_lies(tmp_path: Path) -> None:
    odd = tmp_path / "odd\udcff.png"
    odd.write_bytes(b"bytes")
    literal = tmp_path / "odd\\xff.png"
    literal.write_bytes(b"others")
    found = {file.inside: (file.path, read_bytes(file)) for file in list_files(tmp_path)}
    assert found == {"odd\\xff.png": (odd, b"bytes"), "odd\\x5cxff.png": (literal, b"others")}


@pytest.mark.parametrize("full", ["file system", "database"])
def test_a_full_disk_is_one_line_that_says_what_to_do(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IngestConfig(source=SyntheticSource(slices=20, size_px=32, labelled=10))

    def refuse(own: journal.Journal) -> None:
        if full == "file system":
            raise OSError(errno.ENOSPC, "No space left on device")
        own.change("PRAGMA max_page_count = 1")
        own.change("CREATE TABLE more (text TEXT)")
        own.change_each("INSERT INTO more VALUES (?)", (("x" * 4000,) for _ in range(100)))

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "commit", refuse)
        with pytest.raises(ArtifactError, match=r"catalog: no space is left; free some and run again") as error:
            ingest(config, output=tmp_path / "catalog")
    assert isinstance(error.value.__cause__, OSError if full == "file system" else sqlite3.OperationalError)
    assert ingest(config, output=tmp_path / "catalog").slices
