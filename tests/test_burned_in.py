"""Text in pixels is found where it is drawn, is not found in what holds none, and is told, not dropped."""

import io
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest
from dicom_objects import ct

from scanloop.archive.burned_in import has_text, text_rows
from scanloop.archive.decode import shrink
from scanloop.artifacts import read_json, read_table
from scanloop.config import IngestConfig
from scanloop.sources import DicomSource
from scanloop.steps.ingest import ingest
from scanloop.types import Image


def drawn(image: Image, text: str, height_px: int, at: tuple[int, int] = (4, 4), grey: int = 255) -> Image:
    picture = PIL.Image.fromarray(image.copy())
    font = PIL.ImageFont.load_default(size=height_px / 0.73)
    PIL.ImageDraw.Draw(picture).text(at, text, font=font, fill=grey)
    return np.asarray(picture)


def slices(path: Path, count: int) -> list[Image]:
    """Evenly spread images of a tar, as they are stored."""
    found = []
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.name.endswith((".png", ".jpg"))]
        for member in members[:: len(members) // count][:count]:
            picture = PIL.Image.open(io.BytesIO(tar.extractfile(member).read())).convert("L")
            found.append(np.asarray(shrink(picture, 256)))
    return found


@pytest.mark.parametrize("text", ["DOE^JANE", "ID 0048213", "12/03/1961", "St Mary Hospital"])
@pytest.mark.parametrize("height_px", [8, 12, 18])
def test_a_line_of_print_is_found_where_it_stands(text: str, height_px: int) -> None:
    image = np.random.default_rng(0).integers(0, 30, (256, 300), dtype=np.uint8)
    assert not has_text(image)
    for background, grey in ((image, 255), (255 - image, 0)):
        rows = text_rows(drawn(background, text, height_px, at=(40, 100), grey=grey))
        assert len(rows)
        assert rows[:, 0].min() >= 98
        assert rows[:, 2].max() <= 100 + 2 * height_px
        assert rows[:, 1].min() >= 39


def test_colour_is_looked_at_by_its_brightest_channel() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 1] = drawn(image[..., 1], "DOE^JANE", 10)
    assert has_text(image)


def test_a_side_marker_a_scale_and_a_grid_are_no_text() -> None:
    image = np.zeros((256, 256), np.uint8)
    assert not has_text(drawn(image, "R", 16))
    ticks = image.copy()
    ticks[20:28, 20:240:8] = 255
    assert not has_text(ticks)
    assert not has_text(np.kron(np.indices((16, 16)).sum(axis=0) % 2 * 255, np.ones((16, 16))).astype(np.uint8))


def test_heads_seldom_seem_to_hold_text_and_names_on_them_are_found(data_dir: Path) -> None:
    heads = slices(data_dir / "brain_mri_oc.tar", 100)
    assert sum(has_text(head) for head in heads) <= 6
    assert sum(has_text(drawn(head, "DOE^JANE 1961", 10)) for head in heads) >= 90


def test_a_suspected_slice_is_flagged_or_quarantined_and_counted(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        image = generator.integers(0, 30, (128, 128), dtype=np.uint8)
        shown = drawn(image, "DOE^JANE 1961", 10) if name == "b" else image
        ct(tmp_path / "in" / name, shown.astype(np.int16), PatientID=name, WindowCenter=128, WindowWidth=256)
    (tmp_path / "l.csv").write_text("patient_id,label\na,x\nb,y\nc,y\n")
    given = {"path": str(tmp_path / "in"), "labels": str(tmp_path / "l.csv"), "key_file": str(tmp_path / "key")}
    ingest(IngestConfig(source=DicomSource(**given)), output=tmp_path / "flag" / "catalog")
    attributes = read_table(tmp_path / "flag" / "catalog", "attributes.parquet")
    assert attributes[["name", "value"]].values.tolist() == [["burned_in_text", "suspected"]]
    manifest = read_table(tmp_path / "flag" / "catalog", "manifest")
    assert len(manifest) == 3
    evidence = read_json(tmp_path / "flag" / "catalog" / "deidentification.json")["burned_in_text"]
    assert evidence == {"slices": 3, "suspected": 1, "suspected_share": 1 / 3, "quarantined": 0}
    ingest(IngestConfig(source=DicomSource(**given, burned_in="quarantine")), output=tmp_path / "hold" / "catalog")
    assert read_table(tmp_path / "hold" / "catalog", "quarantine.parquet")["reason"].tolist() == ["burned_in_text"]
    evidence = read_json(tmp_path / "hold" / "catalog" / "deidentification.json")["burned_in_text"]
    assert evidence == {"slices": 2, "suspected": 0, "suspected_share": 0.0, "quarantined": 1}
    ingest(IngestConfig(source=DicomSource(**given, deidentify=False)), output=tmp_path / "open" / "catalog")
    assert len(read_table(tmp_path / "open" / "catalog", "attributes.parquet")) == 0
