"""Readers of any kind hide names, ids and paths the same way; an order or a message tells nothing either."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scanloop.archive.decode import encode_png
from scanloop.archive.deidentify import Pseudonyms, forgotten_file, write_private
from scanloop.archive.readers.hiding import hide
from scanloop.archive.readers.record import RawImage
from scanloop.artifacts import read_json, read_table
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError
from scanloop.sources import FolderSource
from scanloop.steps.ingest import ingest

KEY = b"0123456789abcdef" * 2
NAMES = ("abel-jane", "baker-john", "clark-mary", "dover-paul", "evans-lucy", "foster-tim")


def archive(folder: Path) -> Path:
    """Two images each of six patients, whose names stand in the paths; one file is no image."""
    generator = np.random.default_rng(0)
    for turn, name in enumerate(NAMES):
        for number in range(2):
            path = folder / "in" / ("labelled/" + "xy"[turn % 2] if turn < 4 else "unlabelled") / f"{name}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(generator.integers(0, 256, (24, 24), dtype=np.uint8)))
    (folder / "in" / "unlabelled" / "evans-lucy_broken.png").write_bytes(b"text")
    write_private(folder / "key", KEY)
    return folder / "in"


def source(folder: Path, **changes: Any) -> FolderSource:
    given = {"path": str(archive(folder)), "key_file": str(folder / "key"), "patient_pattern": r"([a-z]+-[a-z]+)_"}
    return FolderSource(**(given | changes))


def test_a_folder_comes_in_without_names_and_its_map_leads_back(tmp_path: Path) -> None:
    ingest(IngestConfig(source=source(tmp_path)), output=tmp_path / "run" / "catalog")
    manifest = read_table(tmp_path / "run" / "catalog", "manifest")
    assert manifest.groupby("patient_id").size().tolist() == [2] * 6
    assert manifest["group_id"].nunique() == 6
    assert set(manifest["label"].dropna()) == {"x", "y"}
    (map_file,) = tmp_path.glob("key.*.map.csv")
    rows = {row["uri"]: row for row in csv.DictReader(map_file.open())}
    sources = read_table(tmp_path / "run" / "catalog", "sources.parquet").merge(manifest, on="slice_id")
    for row in sources.itertuples():
        name = rows[row.uri]["path"].rpartition("/")[2].partition("_")[0]
        assert rows[row.uri]["patient"] == row.patient_id == Pseudonyms(KEY).patient(name)
    evidence = read_json(tmp_path / "run" / "catalog" / "deidentification.json")
    assert (evidence["files"], evidence["patients"], evidence["originals_found"]) == (13, 6, 0)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or not any(name.encode() in path.read_bytes() for name in NAMES), path
    cells = {str(cell) for name in ("sources.parquet", "manifest", "quarantine.parquet")
             for row in read_table(tmp_path / "run" / "catalog", name).itertuples() for cell in row}  # fmt: skip
    assert not any(name in cell for name in NAMES for cell in cells)


def test_the_order_of_the_slices_does_not_follow_the_names(tmp_path: Path) -> None:
    ingest(IngestConfig(source=source(tmp_path)), output=tmp_path / "run" / "catalog")
    catalog = tmp_path / "run" / "catalog"
    order = read_table(catalog, "sources.parquet")["uri"].tolist()
    assert order == sorted(order)
    stands_for = {Pseudonyms(KEY).patient(name): name for name in NAMES}
    named = [stands_for[pseudonym] for pseudonym in read_table(catalog, "manifest")["patient_id"]]
    assert named != sorted(named)
    assert any(one != two for one, two in zip(named[::2], named[1::2], strict=True))


def test_a_message_about_a_hidden_archive_names_no_folder_in_it(tmp_path: Path) -> None:
    config = IngestConfig(source=source(tmp_path, labelled_dir="absent"))
    with pytest.raises(ArchiveError, match=r"set ingest\.source\.labelled_dir$"):
        ingest(config, output=tmp_path / "run" / "catalog")
    note = json.loads((tmp_path / "run" / ".catalog.error.json").read_text())
    assert "unlabelled" not in note["message"]


def test_a_forgotten_patient_does_not_come_in_again(tmp_path: Path) -> None:
    chosen = source(tmp_path)
    write_private(forgotten_file(tmp_path / "key"), f"{Pseudonyms(KEY).patient('clark-mary')}\n".encode())
    ingest(IngestConfig(source=chosen), output=tmp_path / "run" / "catalog")
    manifest = read_table(tmp_path / "run" / "catalog", "manifest")
    assert manifest["patient_id"].nunique() == 5
    assert Pseudonyms(KEY).patient("clark-mary") not in set(manifest["patient_id"])
    evidence = read_json(tmp_path / "run" / "catalog" / "deidentification.json")
    assert (evidence["files"], evidence["files_of_erased_patients_left_out"]) == (11, 2)
    (map_file,) = tmp_path.glob("key.*.map.csv")
    assert "clark-mary" not in map_file.read_text()


def test_of_further_facts_the_allow_list_alone_stays(tmp_path: Path) -> None:
    said = {"study_date": "2020-01-10", "sex": "F", "age_years": "95", "body_part": "CHEST", "view": "Roe", "note": "x"}
    raw = RawImage("in/a/b.png#3", b"", 3, patient_id="P", study_id="S", site="Saint Mary", attributes=said)
    evidence: dict[str, Any] = {}
    options = {"modified_dates": True, "patient_characteristics": True}
    (hidden,) = hide([replace(raw, modality="Roe")], source(tmp_path, **options), evidence)
    names = Pseudonyms(KEY)
    assert hidden.uri == names.path("folder", "a/b.png") + "#3"
    assert (hidden.patient_id, hidden.study_id, hidden.site) == (
        names.patient("P"),
        names.study("S"),
        names.site("Saint Mary"),
    )
    assert hidden.modality is None
    assert hidden.attributes.pop("study_date") < "2020-01-10"
    assert hidden.attributes == {"sex": "F", "age_years": "90", "body_part": "CHEST"}
    assert (evidence["originals_checked"], evidence["originals_found"]) == (5, 0)
    (bare,) = hide([raw], source(tmp_path), {})
    assert bare.attributes == {"body_part": "CHEST"}


def test_a_folder_of_patients_needs_a_key_or_the_word_that_it_is_public() -> None:
    with pytest.raises(ValidationError, match="for a public set say deidentify: false"):
        FolderSource(path="x")
