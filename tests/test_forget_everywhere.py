"""Erasure beyond the tables: bases, unfinished folders, lists of the splits, and a search that looks inside files."""

import csv
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from searching import everything_in
from stored import stored_slices
from test_identities import KEY, NAMES, archive, source

from scanloop.archive.deidentify import Pseudonyms
from scanloop.archive.shards import ShardWriter
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, read_table
from scanloop.config import IngestConfig, TableSource
from scanloop.erasure.forget import forget
from scanloop.erasure.search import traces
from scanloop.erasure.subject import Subject
from scanloop.errors import ErasureError
from scanloop.provenance import file_digest
from scanloop.steps.ingest import ingest

PATIENT = str(Pseudonyms(KEY).patient("abel-jane"))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def mentions(folder: Path, *ids: str) -> list[str]:
    blob, cells = everything_in(folder)
    return [one for one in ids if one.encode() in blob or one in cells]


def ids_of(catalog: Path, patient: str) -> list[str]:
    manifest = read_table(catalog, "manifest")
    ids = manifest.loc[manifest["patient_id"] == patient, "slice_id"].tolist()
    sources = read_table(catalog, "sources.parquet")
    return [patient, *ids, *sources.loc[sources["slice_id"].isin(ids), "uri"]]


def test_an_extension_loses_the_patient_and_its_base_not_a_byte(tmp_path: Path) -> None:
    config = IngestConfig(source=source(tmp_path), shard_slices=4)
    ingest(config, output=tmp_path / "old" / "catalog")
    extended = config.model_copy(update={"base": str(tmp_path / "old" / "catalog")})
    ingest(extended, output=tmp_path / "new" / "catalog")
    base, catalog = tmp_path / "old" / "catalog", tmp_path / "new" / "catalog"
    inodes = [{path.stat().st_ino for path in (one / "shards").iterdir()} for one in (base, catalog)]
    assert inodes[0] == inodes[1]  # hard links: what is written in place here is written there too
    theirs, before = ids_of(catalog, PATIENT), digests(tmp_path / "old")
    report = forget(tmp_path / "new", "abel-jane")
    assert digests(tmp_path / "old") == before
    assert mentions(tmp_path / "new", *theirs) == []
    said = " ".join(report["cannot_be_cleaned_here"])
    assert "the base catalog old/catalog still holds 2 slices of the patient" in said
    assert "shards are files of another catalog too" in said
    proven_manifest(catalog)
    forget(tmp_path / "old", "abel-jane")
    again = forget(tmp_path / "new", "baker-john")
    assert "still holds 2 slices" in " ".join(again["cannot_be_cleaned_here"])  # those of baker-john
    assert mentions(tmp_path / "old", *theirs) == []


def test_who_was_forgotten_does_not_come_back_through_a_base_that_holds_them_still(tmp_path: Path) -> None:
    config = IngestConfig(source=source(tmp_path), shard_slices=4)
    for name in ("old", "other"):
        ingest(config, output=tmp_path / name / "catalog")
    base, before = tmp_path / "old" / "catalog", digests(tmp_path / "old")
    theirs = ids_of(base, PATIENT)
    forget(tmp_path / "other", "abel-jane")
    extended = config.model_copy(update={"base": str(base)})
    ingest(extended, output=tmp_path / "new" / "catalog")
    assert mentions(tmp_path / "new", *theirs) == []
    assert digests(tmp_path / "old") == before
    manifest, was = proven_manifest(tmp_path / "new" / "catalog"), read_table(base, "manifest")
    assert set(manifest["slice_id"]) == set(was["slice_id"]) - set(theirs)
    images, images_before = (stored_slices(one, manifest if one != base else was)
                             for one in (tmp_path / "new" / "catalog", base))  # fmt: skip
    assert all(np.array_equal(image, images_before[one]) for one, image in images.items())
    assert read_json(tmp_path / "new" / "catalog" / "deidentification.json")["files_of_erased_patients_left_out"] == 2


def test_the_evidence_of_deidentification_counts_who_is_left(tmp_path: Path) -> None:
    ingest(IngestConfig(source=source(tmp_path)), output=tmp_path / "run" / "catalog")
    forget(tmp_path / "run", "evans-lucy")
    fresh = source(tmp_path / "fresh")
    for path in (tmp_path / "fresh").rglob("evans-lucy*"):
        path.unlink()
    ingest(IngestConfig(source=fresh), output=tmp_path / "whole" / "catalog")
    facts, expected = (read_json(tmp_path / run / "catalog" / "deidentification.json") for run in ("run", "whole"))
    assert facts["files_of_erased_patients_left_out"] == 3
    for name in ("files", "patients", "studies", "burned_in_text"):
        assert facts[name] == expected[name], name


class Killed(BaseException):
    """Stands for a kill: no part of the product catches it."""


def killed_ingest(config: IngestConfig, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingest that has taken everything in, and dies before its first table is written."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("scanloop.steps.ingest.group_and_split", die)
        with pytest.raises(Killed):
            ingest(config, output=output)


def test_what_a_killed_ingest_left_of_the_patient_goes_and_of_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IngestConfig(source=source(tmp_path))
    killed_ingest(config, tmp_path / "run" / "catalog", monkeypatch)
    partial = tmp_path / "run" / ".catalog.partial"
    assert {"journal.sqlite", "thumbnails.u8"} <= {path.name for path in (partial / ".scratch").iterdir()}
    with pytest.raises(ErasureError, match="say --key-file"):
        forget(tmp_path / "run", "abel-jane")
    with pytest.raises(ErasureError, match="no slice and no file of this patient"):
        forget(tmp_path / "run", "nobody-here", tmp_path / "key")
    assert partial.exists()
    report = forget(tmp_path / "run", "abel-jane", tmp_path / "key")
    assert report["unfinished_and_removed"] == ["catalog"]
    assert not partial.exists()
    ingest(config, output=tmp_path / "run" / "catalog")
    assert mentions(tmp_path / "run", PATIENT) == []
    assert len(read_table(tmp_path / "run" / "catalog", "manifest")) == 2 * (len(NAMES) - 1)


def test_an_ingest_that_was_killed_over_an_older_catalog_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IngestConfig(source=source(tmp_path))
    ingest(config, output=tmp_path / "run" / "catalog")
    killed_ingest(config.model_copy(update={"shard_slices": 3}), tmp_path / "run" / "catalog", monkeypatch)
    forget(tmp_path / "run", PATIENT)
    assert not (tmp_path / "run" / ".catalog.partial").exists()
    assert mentions(tmp_path / "run", PATIENT) == []


def test_the_lists_of_the_splits_agree_with_the_manifest_whatever_a_patient_is_called(tmp_path: Path) -> None:
    folder = archive(tmp_path)
    rows = [("path", "label", "patient", "site")]
    for number, path in enumerate(sorted(folder.rglob("*_[01].png"))):
        label = path.parent.name if path.parent.name in "xy" else ""
        rows.append((path.relative_to(folder).as_posix(), label, str(number // 2 % 3), f"s{number // 6}"))
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = {"path": "path", "label": "label", "patient_id": "patient", "site": "site"}
    table = TableSource(path=str(folder), table=str(tmp_path / "table.csv"), deidentify=False, columns=columns)
    catalog = tmp_path / "run" / "catalog"
    ingest(IngestConfig(source=table, test_share=0.3), output=catalog)
    lists = "".join(path.read_text() for path in catalog.glob("*_patients.txt"))
    assert {"s0/1", "s1/1"} <= set(lists.split("\n"))
    forget(tmp_path / "run", "1", tmp_path / "key2")
    manifest = proven_manifest(catalog)
    assert set(manifest["patient_id"]) == {"0", "2"}


SLICE = "ab" * 32
SUBJECT = Subject("h", "9" * 32, ("P1 & <Ö>",), (SLICE,), ("in/P1/Jö.png",), (), {}, {})


def database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE slices (slice_id BLOB)")
        connection.execute("INSERT INTO slices VALUES (?)", (bytes.fromhex(SLICE),))


def tar(path: Path) -> None:
    (path.parent / "shards").mkdir()
    writer = ShardWriter(path.parent, 1)
    writer.add(SLICE, b"png")
    (path.parent / "shards" / str(writer.close())).rename(path)


def npz(path: Path) -> None:
    np.savez_compressed(path, ids=np.array([SLICE] * 3))


def safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, np.float16)}, path, metadata={"of": SLICE})


PLANTED: dict[str, Callable[[Path], object]] = {
    "long.parquet": lambda path: pq.write_table(pa.table({"x": pa.array([SLICE], pa.large_string())}), path),
    "coded.parquet": lambda path: pq.write_table(pa.table({"x": pa.array([SLICE]).dictionary_encode()}), path),
    "lists.parquet": lambda path: pq.write_table(pa.table({"x": [["no", SLICE]]}), path),
    "file.parquet": lambda path: pq.write_table(pa.table({"file": ["in/P1/Jö.png"]}), path),
    "near.parquet": lambda path: pq.write_table(pa.table({"near": [SLICE]}), path),
    "a.tar": tar,
    "a.sqlite": database,
    "a.safetensors": safetensors,
    "a.npz": npz,
    "a.json": lambda path: path.write_text(json.dumps({"x": ["see in/P1/Jö.png"]})),  # "\u00f6" in its bytes
    "a.html": lambda path: path.write_text("<p>P1 &amp; &lt;&Ouml;&gt;</p>"),
    "a.txt": lambda path: path.write_text("one\nin/P1/Jö.png\n"),
    f"{SLICE}.bin": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_the_search_looks_inside(name: str, tmp_path: Path) -> None:
    PLANTED[name](tmp_path / name)
    (tmp_path / "other.txt").write_text("in/P1/Jö.png2 P1\n")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert list(traces(iter(files), SUBJECT)) == [tmp_path / name]
