"""DICOM objects become slices that show what pydicom's own pipeline shows; everything else is quarantined, truly."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_objects import TABLE, ct, show
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_expected_length
from stored import stored_slices

from scanloop.archive.dicom.pixels import DEFAULT_PERCENTILES
from scanloop.archive.readers.labels import read_labels
from scanloop.artifacts import QUARANTINE_REASONS, read_table
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError, ConfigError, ImageError
from scanloop.sources import DicomSource
from scanloop.steps.ingest import ingest


def decodable(samples: Path) -> Iterator[tuple[str, Dataset, np.ndarray]]:
    """Every sample that pydicom decodes, with its frames."""
    for path in sorted(path for path in samples.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(path, force=True)
            pixels = dataset.pixel_array
        except Exception:  # pydicom's own word on what it cannot decode
            continue
        frames = pixels if int(dataset.get("NumberOfFrames") or 1) > 1 else pixels[None]
        yield path.relative_to(samples).as_posix(), dataset, frames


def test_all_samples_come_in_as_slices_or_with_a_true_reason(data_dir: Path, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    source = DicomSource(
        path=str(data_dir / "dicom_samples.tar"), labels=str(tmp_path / "labels.csv"), deidentify=False
    )
    summary = ingest(IngestConfig(source=source, min_side_px=1), output=tmp_path / "catalog")
    sources = read_table(tmp_path / "catalog", "sources.parquet")
    quarantine = read_table(tmp_path / "catalog", "quarantine.parquet")
    files = {f"dicom_samples.tar/{path.relative_to(samples)}" for path in samples.rglob("*") if path.is_file()}
    sliced = {uri.partition("#")[0] for uri in sources["uri"]}
    refused = {uri.partition("#")[0] for uri in quarantine["uri"]}
    assert len(files) == 284
    assert sliced | refused == files
    assert not sliced & refused
    expected = {
        f"dicom_samples.tar/{name}" + (f"#{frame}" if len(frames) > 1 else "")
        for name, _, frames in decodable(samples)
        for frame in range(len(frames))
    }
    assert len(expected) > 300
    assert expected <= set(sources["uri"])
    assert summary.labelled == 2
    reasons = {uri.partition("/")[2]: (row.reason, row.detail) for uri, row in quarantine.set_index("uri").iterrows()}
    folder = "pydicom_test_files/test_files/"
    assert {reason for reason, _ in reasons.values()} <= set(QUARANTINE_REASONS)
    assert reasons[folder + "MR_truncated.dcm"] == ("truncated", "8130 bytes of pixels, 8192 are promised")
    assert reasons[folder + "rtplan.dcm"] == ("no_pixels", "RT Plan Storage: the object holds no pixels")
    assert reasons[folder + "test-SR.dcm"][1].startswith("Comprehensive SR Storage")
    assert reasons[folder + "rtstruct.dcm"][1].startswith("RT Structure Set Storage")
    assert reasons[folder + "README.txt"][0] == reasons["pydicom_data/LICENSE"][0] == "not_an_image"
    assert reasons[folder + "JPGExtended.dcm"][0] == "unsupported"
    assert reasons[folder + "badVR.dcm"] == ("unreadable", "the number of frames is malformed")


def test_every_reason_is_what_pydicom_meets_as_well(data_dir: Path, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    archive = str(data_dir / "dicom_samples.tar")
    source = DicomSource(path=archive, labels=str(tmp_path / "labels.csv"), deidentify=False)
    ingest(IngestConfig(source=source, min_side_px=1), output=tmp_path / "catalog")
    quarantine = read_table(tmp_path / "catalog", "quarantine.parquet")
    for row in quarantine.drop_duplicates("reason").itertuples():
        assert row.reason in {"no_pixels", "not_an_image", "truncated", "unreadable", "unsupported"}
    for row in quarantine.itertuples():
        path = samples / row.uri.partition("/")[2].partition("#")[0]
        if row.reason == "not_an_image":
            assert path.read_bytes()[128:132] != b"DICM"
            continue
        dataset = pydicom.dcmread(path, force=True)
        if row.reason == "no_pixels":
            assert not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()), path
            continue
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever pydicom and its plugins raise
            _ = dataset.pixel_array
        if row.reason == "truncated":
            assert len(dataset.PixelData) < get_expected_length(dataset)
        if row.reason == "unsupported":
            known = dataset.file_meta.TransferSyntaxUID
            assert dataset.BitsAllocated == 1 or known.name == known or dataset.BitsStored == 12, path
    assert len(quarantine) > 100


def test_every_frame_that_pydicom_decodes_has_the_values_of_its_pipeline(samples: Path) -> None:
    compared = 0
    for name, dataset, frames in decodable(samples):
        if "PerFrameFunctionalGroupsSequence" in dataset:
            continue  # pydicom's functions read the top of a header alone; these have a test of their own
        for index, stored in enumerate(frames):
            if dataset.PhotometricInterpretation.startswith("MONOCHROME"):
                expected = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
            elif dataset.PhotometricInterpretation == "PALETTE COLOR":
                expected = apply_color_lut(stored, dataset)
            else:
                expected = stored
            shown = show(samples / name, index)
            np.testing.assert_array_equal(shown.values, expected, err_msg=f"{name}#{index}")
            assert shown.brightness().max() <= 255
            compared += 1
    assert compared > 200


def test_the_groups_of_a_frame_lie_over_the_header(samples: Path) -> None:
    dataset = pydicom.dcmread(samples / "pydicom_data/eCT_Supplemental.dcm")
    for index, stored in enumerate(dataset.pixel_array):
        header = Dataset()
        for groups in (
            *dataset.SharedFunctionalGroupsSequence,
            dataset.PerFrameFunctionalGroupsSequence[index],
        ):
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in groups.get(name, []):
                    header.update(item)
        assert "RescaleSlope" in header
        slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
        values = stored * slope + intercept
        shown = show(samples / "pydicom_data/eCT_Supplemental.dcm", index)
        if "WindowCenter" not in header:
            np.testing.assert_allclose(shown.values, values)
            continue
        center, width = float(header.WindowCenter), float(header.WindowWidth)
        ramp = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
        np.testing.assert_allclose(shown.brightness(), 255 * ramp, atol=1e-3)


def test_a_window_becomes_the_ramp_of_the_standard(tmp_path: Path) -> None:
    pixels = np.arange(-1000, 1000).reshape(40, 50)
    path = ct(tmp_path / "a", pixels, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[40, 9], WindowWidth=[400, 9])
    ramp = np.clip((2 * pixels - 100 - 39.5) / 399 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2
    np.testing.assert_allclose(show(path).brightness(), 255 * ramp, atol=1e-3)
    inverted = ct(
        tmp_path / "b",
        pixels,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=40,
        WindowWidth=400,
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_allclose(show(inverted).brightness(), 255 * (1 - ramp), atol=1e-3)


def test_without_a_window_percentiles_of_what_is_not_padding_decide(tmp_path: Path) -> None:
    pixels = np.arange(2000).reshape(40, 50)
    pixels[:10] = -2000
    low, high = np.percentile(pixels[10:], DEFAULT_PERCENTILES)
    expected = 255 * np.clip((pixels - low) / (high - low), 0, 1)
    padded = ct(tmp_path / "a", pixels, PixelPaddingValue=-2000)
    np.testing.assert_allclose(show(padded).brightness(), expected, atol=1e-3)
    assert show(ct(tmp_path / "b", pixels)).black == -2000
    broken = ct(tmp_path / "c", pixels, PixelPaddingValue=-2000, WindowCenter=40, WindowWidth=0)
    np.testing.assert_allclose(show(broken).brightness(), expected, atol=1e-3)
    assert show(ct(tmp_path / "d", np.full((9, 9), 7))).brightness().tolist() == np.zeros((9, 9)).tolist()


def test_depth_is_kept_until_the_slice_has_been_shrunk(tmp_path: Path) -> None:
    """A checkerboard of 1 and 2 of 510 grey levels averages to 1.5 / 2 of 255, which rounding first would lose."""
    board = 400 + np.indices((64, 64)).sum(axis=0) % 2 * 3
    other = np.arange(64 * 64).reshape(64, 64)
    for name, pixels in (("x", board), ("y", other)):
        ct(tmp_path / "in" / name, pixels, WindowCenter=512.5, WindowWidth=1024, PatientID=name)
    (tmp_path / "l.csv").write_text("patient_id,label\nx,a\ny,b\n")
    source = DicomSource(path=str(tmp_path / "in"), labels=str(tmp_path / "l.csv"), deidentify=False)
    ingest(IngestConfig(source=source, short_side_px=16), output=tmp_path / "catalog")
    manifest = read_table(tmp_path / "catalog", "manifest")
    row = manifest[manifest["patient_id"] == "x"]
    assert row[["study_id", "modality", "bits", "height", "label"]].values.tolist() == [["1.2.3", "CT", 16, 64, "a"]]
    (image,) = stored_slices(tmp_path / "catalog", row).values()
    assert set(image.ravel().tolist()) == {round(255 * 401.5 / 1023)}


def test_frames_are_read_alone_and_a_cut_file_keeps_its_whole_ones(tmp_path: Path) -> None:
    pixels = np.arange(3 * 9 * 9).reshape(3, 9, 9)
    path = ct(tmp_path / "a", pixels)
    np.testing.assert_array_equal(show(path, 2).values, pixels[2])
    path.write_bytes(path.read_bytes()[:-10])
    np.testing.assert_array_equal(show(path, 1).values, pixels[1])
    with pytest.raises(ImageError, match="truncated: 476 bytes of pixels, 486 are promised"):
        show(path, 2)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"NumberOfFrames": 30_000}, {}, "too_large"),
        ({}, {"max_pixels": 80}, "too_large"),
        ({}, {"min_side_px": 10}, "too_small"),
        ({"Modality": "SEG"}, {}, "other_modality"),
        ({"PhotometricInterpretation": ""}, {}, "unreadable"),
        ({"BitsAllocated": 7}, {}, "unreadable"),
    ],
)
def test_what_cannot_come_in_says_why(
    tmp_path: Path, changes: dict[str, object], config: dict[str, int], reason: str
) -> None:
    ct(tmp_path / "in" / "bad", np.zeros((9, 9)), **changes)
    good = np.random.default_rng(0).integers(0, 999, (2, 11, 7 if "max_pixels" in config else 11))
    for name, pixels in zip(("one", "two"), good, strict=True):
        ct(tmp_path / "in" / name, pixels, PatientID=name)
    (tmp_path / "l.csv").write_text("path,label\none,a\ntwo,b\n")
    source = DicomSource(
        path=str(tmp_path / "in"), labels=str(tmp_path / "l.csv"), deidentify=False, modalities=("CT",)
    )
    limits = {"min_side_px": 1, **config}
    ingest(IngestConfig(source=source, **limits), output=tmp_path / "catalog")
    quarantine = read_table(tmp_path / "catalog", "quarantine.parquet")
    assert quarantine[["uri", "reason"]].values.tolist() == [["in/bad", reason]]


def test_a_deflated_bomb_is_refused_before_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanloop.archive.dicom.header.MAX_INFLATED_BYTES", 100_000)
    path = ct(tmp_path / "a", np.zeros((300, 300)))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert path.stat().st_size < 5000
    with pytest.raises(ImageError, match="too_large: the data set inflates to more than 100000 bytes"):
        show(path)


def test_a_table_of_labels_is_checked(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    for text, words in (
        ("path,name\n", "needs the column 'label'"),
        ("path,study_id,label\n", "exactly one of"),
        ("path,label\na,x\na,y\n", "line 3: its path has two labels, x and y"),
    ):
        table.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_labels(table)
    with pytest.raises(ArchiveError, match="not a readable CSV"):
        read_labels(tmp_path / "absent.csv")
    table.write_text("study_id,label\n1.2,x\n1.3,\n")
    assert read_labels(table) == ("study_id", {"1.2": "x"})
