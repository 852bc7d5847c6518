"""A catalog that is made with a base says what a fresh one says, whatever happened to the archive in between."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_objects import ct
from stored import stored_slices

from scanloop.archive import intake
from scanloop.archive.decode import encode_png
from scanloop.archive.deidentify import Pseudonyms, map_files, read_key, remember_forgotten
from scanloop.archive.dicom.facts import Facts
from scanloop.archive.dicom.process import DicomProcess, Part
from scanloop.archive.intake import Prepared
from scanloop.archive.journal import Journal
from scanloop.artifacts import is_exempt, read_json, read_table
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError, ConfigError, ImageError
from scanloop.sources import DicomSource, FolderSource, TableSource
from scanloop.steps.ingest import ingest

FACTS = [
    "slice_id", "sha256", "frame", "phash", "patient_id", "study_id", "site", "modality", "height", "width", "bits",
    "label", "label_source",
]  # fmt: skip
PATIENT = r"(p\d+)_"


def png(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8))


def archive(root: Path) -> Path:
    for row in range(24):
        folder = ("labelled/a", "labelled/b", "unlabelled")[row % 3]
        place(root / folder / f"p{row // 2:02d}_{row}.png", png(row))
    place(root / "unlabelled" / "p03_copy.png", png(0))
    place(root / "unlabelled" / "broken.png", b"no image")
    return root


def place(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)


def leave_alone(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            path.unlink()


def folder(root: Path, **changes: Any) -> IngestConfig:
    source = FolderSource(path=str(root), patient_pattern=PATIENT, **({"deidentify": False} | changes))
    return IngestConfig(source=source, shard_slices=4, test_share=0.2)


def on(config: IngestConfig, base: Path) -> IngestConfig:
    return config.model_copy(update={"base": str(base)})


def said(catalog: Path) -> dict[str, Any]:
    """All that a catalog says but for where slices stand, groups, and splits; and the pixels."""
    manifest = read_table(catalog, "manifest")
    others = ("sources.parquet", "quarantine.parquet", "hidden_labels.parquet", "attributes.parquet")
    rows = {name: sorted(map(repr, read_table(catalog, name).to_numpy().tolist())) for name in others}
    pixels = {name: image.tobytes() for name, image in stored_slices(catalog, manifest).items()}
    return rows | {"manifest": sorted(map(repr, manifest[FACTS].to_numpy().tolist())), "pixels": pixels}


def file_bytes(catalog: Path) -> dict[str, bytes]:
    files = (path for path in sorted(catalog.rglob("*")) if path.is_file() and not is_exempt(path))
    return {str(path.relative_to(catalog)): path.read_bytes() for path in files}


def check(old: Path, new: Path, fresh: Path) -> None:
    assert said(new) == said(fresh)
    ranks = {"train": 0, "validation": 1, "test": 2}
    before, after = (read_table(one, "manifest").set_index("slice_id")["split"].map(ranks) for one in (old, new))
    assert not (after.reindex(before.index) < before).any(), "a slice that was held out came back"


def dying_at(commit_number: int) -> Callable[[Journal], None]:
    whole, done = Journal.commit, [0]

    def commit(journal: Journal) -> None:
        done[0] += 1
        if done[0] == commit_number:
            raise KeyboardInterrupt
        whole(journal)

    return commit


CHANGES: dict[str, Callable[[Path], object]] = {
    "a class is corrected": lambda root: shutil.move(root / "labelled/a/p00_0.png", root / "labelled/b/p00_0.png"),
    "a file gets another patient": lambda root: shutil.move(
        root / "labelled/b/p02_4.png", root / "labelled/b/p07_4.png"
    ),
    "the first of two copies goes": lambda root: (root / "labelled/a/p00_0.png").unlink(),
    "a copy comes that stands before": lambda root: place(root / "labelled/a/p00_.png", png(4)),
    "a label is contradicted": lambda root: place(root / "labelled/a/p09_z.png", png(1)),
    "a file breaks": lambda root: place(root / "labelled/a/p03_6.png", b"broken now"),
    "a file is mended": lambda root: place(root / "unlabelled/broken.png", png(50)),
    "the last files go": lambda root: leave_alone(root / "unlabelled", "p03_copy.png"),
    "the labels to keep are drawn anew": lambda root: [
        (root / "labelled" / "b" / f"p{row}_.png").write_bytes(png(row)) for row in range(60, 70)
    ],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["open", "hidden", "few labels"])
def test_an_extension_says_what_a_fresh_ingest_says(change: str, kind: str, tmp_path: Path) -> None:
    root = archive(tmp_path / "archive")
    key = {"key_file": str(tmp_path / "key" / "key"), "deidentify": True}
    kinds: dict[str, dict[str, Any]] = {"open": {}, "hidden": key, "few labels": {"labelled": 6}}
    config = folder(root, **kinds[kind])
    runs = tmp_path / "runs"
    ingest(config, output=runs / "old")
    CHANGES[change](root)
    ingest(on(config, runs / "old"), output=runs / "new")
    ingest(config, output=runs / "fresh")
    check(runs / "old", runs / "new", runs / "fresh")
    place(root / "unlabelled" / "p99_.png", png(99))
    ingest(on(config, runs / "new"), output=runs / "newer")
    ingest(config, output=runs / "fresher")
    check(runs / "new", runs / "newer", runs / "fresher")


@pytest.mark.parametrize("change", ["the last files go", "the first of two copies goes", "a label is contradicted"])
def test_an_extension_that_is_killed_anywhere_ends_in_the_same_bytes(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = archive(tmp_path / "archive")
    config = folder(root)
    ingest(config, output=tmp_path / "old")
    CHANGES[change](root)
    config = on(config, tmp_path / "old")
    ingest(config, output=tmp_path / "whole")
    for number in range(1, 100):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "commit", dying_at(number))
            try:
                ingest(config, output=tmp_path / "killed")
            except KeyboardInterrupt:
                pass
            else:
                break
        ingest(config, output=tmp_path / "killed")
        assert file_bytes(tmp_path / "killed") == file_bytes(tmp_path / "whole"), number
        shutil.rmtree(tmp_path / "killed")
    assert number > 4


def test_a_table_that_says_something_else_of_the_same_files_is_believed(tmp_path: Path) -> None:
    root = archive(tmp_path / "archive")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*_?*.png"))

    def tell(turn: int) -> None:
        with (tmp_path / "table.csv").open("w", newline="") as file:
            rows = [
                (name, "ab"[(row + turn) % 2] if row % 3 else "", f"p{(row + turn) // 3}", "FM"[turn])
                for row, name in enumerate(names)
            ]
            csv.writer(file).writerows([("path", "label", "patient_id", "sex"), *rows])

    tell(0)
    columns = {name: name for name in ("path", "label", "patient_id")}
    source = TableSource(
        path=str(root), table=str(tmp_path / "table.csv"), columns=columns, attributes={"sex": "sex"}, deidentify=False
    )
    config = IngestConfig(source=source, shard_slices=4)
    ingest(config, output=tmp_path / "old")
    tell(1)
    ingest(on(config, tmp_path / "old"), output=tmp_path / "new")
    ingest(config, output=tmp_path / "fresh")
    check(tmp_path / "old", tmp_path / "new", tmp_path / "fresh")


def objects(root: Path) -> Path:
    for row in range(6):
        pixels = np.random.default_rng(row).integers(0, 2000, (8, 24, 24)).astype(np.int16)
        ct(root / f"{row}.dcm", pixels[: 1 + row % 2 * 7].squeeze(), PatientID=f"P{row // 2}")
    return root


def dicom(tmp_path: Path, **changes: Any) -> IngestConfig:
    labels = tmp_path / "labels.csv"
    if not labels.exists():
        labels.write_text("path,label\n0.dcm,a\n1.dcm,b\n")
    hidden = {"key_file": str(tmp_path / "key" / "key")}
    source = DicomSource(path=str(tmp_path / "archive"), labels=str(labels), **(hidden | changes))
    return IngestConfig(source=source, shard_slices=3, min_side_px=1)


def test_known_dicom_objects_take_new_labels_and_stay_in_the_private_map(tmp_path: Path) -> None:
    root, runs, config = objects(tmp_path / "archive"), tmp_path / "runs", dicom(tmp_path)
    ingest(config, output=runs / "old")
    before = map_files(tmp_path / "key" / "key")[0].read_bytes()
    ingest(on(config, runs / "old"), output=runs / "same")
    assert map_files(tmp_path / "key" / "key")[0].read_bytes() == before
    assert read_json(runs / "same" / "deidentification.json")["objects_of_base"] == 6
    (tmp_path / "labels.csv").write_text("path,label\n0.dcm,b\n3.dcm,a\n")
    ct(root / "new.dcm", np.ones((24, 24), np.int16), PatientID="P1")
    ingest(on(config, runs / "old"), output=runs / "new")
    ingest(config, output=runs / "fresh")
    check(runs / "old", runs / "new", runs / "fresh")


def test_a_patient_who_was_erased_since_the_base_does_not_come_back_with_it(tmp_path: Path) -> None:
    objects(tmp_path / "archive")
    runs, config, key = tmp_path / "runs", dicom(tmp_path), tmp_path / "key" / "key"
    ingest(config, output=runs / "old")
    pseudonym = Pseudonyms(read_key(key)).patient("P2")
    assert pseudonym in set(read_table(runs / "old", "manifest")["patient_id"])
    remember_forgotten(key, str(pseudonym))
    ingest(on(config, runs / "old"), output=runs / "new")
    ingest(config, output=runs / "fresh")
    check(runs / "old", runs / "new", runs / "fresh")
    assert pseudonym not in set(read_table(runs / "new", "manifest")["patient_id"])


def test_a_base_with_names_is_refused_where_they_are_to_be_hidden(tmp_path: Path) -> None:
    root, runs = archive(tmp_path / "archive"), tmp_path / "runs"
    ingest(folder(root), output=runs / "old")
    config = folder(root, deidentify=True, key_file=str(tmp_path / "key" / "key"))
    with pytest.raises(ConfigError, match=r"ingest\.source\.deidentify: True, but .* was made with False"):
        ingest(on(config, runs / "old"), output=runs / "new")


def test_a_kill_within_an_object_of_which_a_frame_is_refused_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects(tmp_path / "archive")
    whole = intake.prepare

    def refusing_dark(config: IngestConfig, payload: Any) -> Prepared:
        prepared = whole(config, payload)
        if prepared.png[-20] % 3 == 0:
            raise ImageError("burned_in_text", "text")
        return prepared

    monkeypatch.setattr(intake, "prepare", refusing_dark)
    config = dicom(tmp_path, deidentify=False)
    ingest(config, output=tmp_path / "runs" / "whole")
    assert 0 < len(read_table(tmp_path / "runs" / "whole", "quarantine.parquet")) < 20
    for number in range(2, 8):
        output = tmp_path / "runs" / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "commit", dying_at(number))
            with pytest.raises(KeyboardInterrupt):
                ingest(config, output=output)
        ingest(config, output=output)
        assert file_bytes(output) == file_bytes(tmp_path / "runs" / "whole")


def test_an_object_that_goes_while_the_archive_is_read_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = objects(tmp_path / "archive")
    whole = DicomProcess.facts

    def taking_away(process: DicomProcess, part: Part) -> Facts:
        facts = whole(process, part)
        if part.path.name == "4.dcm":
            (root / "4.dcm").unlink()
        return facts

    monkeypatch.setattr(DicomProcess, "facts", taking_away)
    ingest(dicom(tmp_path, deidentify=False), output=tmp_path / "runs" / "catalog")
    quarantine = read_table(tmp_path / "runs" / "catalog", "quarantine.parquet")
    assert quarantine[["uri", "reason"]].to_numpy().tolist() == [["archive/4.dcm", "unreadable"]]


def test_a_frame_and_a_file_of_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    root = objects(tmp_path / "archive")
    shutil.copy(root / "0.dcm", root / "1.dcm#2")
    with pytest.raises(ArchiveError, match=r"^archive/1\.dcm#2: two images of the archive have this name; rename one$"):
        ingest(dicom(tmp_path, deidentify=False), output=tmp_path / "runs" / "catalog")


@pytest.mark.parametrize("held_out", range(6))
def test_a_patient_whom_a_copy_alone_shows_joins_the_group_of_that_slice(held_out: int, tmp_path: Path) -> None:
    root = archive(tmp_path / "archive")
    place(root / "labelled" / "a" / "p80_.png", png(80))
    place(root / "labelled" / "a" / "p81_.png", png(80))
    config = folder(root).model_copy(update={"test_share": 0.5, "seed": held_out})
    ingest(config, output=tmp_path / "old")
    place(root / "labelled" / "a" / "p81_new.png", png(81))
    ingest(on(config, tmp_path / "old"), output=tmp_path / "new")
    slice_of = read_table(tmp_path / "new", "sources.parquet").set_index("uri")["slice_id"]
    rows = read_table(tmp_path / "new", "manifest").set_index("slice_id")
    one, two = (rows.loc[slice_of[f"archive/labelled/a/{name}.png"]] for name in ("p80_", "p81_new"))
    assert (one["group_id"], one["split"]) == (two["group_id"], two["split"])
