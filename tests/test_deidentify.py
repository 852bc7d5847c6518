"""De-identified catalogs hold nothing that names a patient; the map to the originals is one private file elsewhere."""

import csv
import io
import os
import re
import stat
import tarfile
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_objects import TABLE, ct
from pydantic import ValidationError
from searching import everything_in

from scanloop.archive.deidentify import Pseudonyms, parse_age, parse_day, read_key, write_private
from scanloop.artifacts import is_exempt, read_json, read_table
from scanloop.config import IngestConfig
from scanloop.errors import ConfigError
from scanloop.sources import DicomSource
from scanloop.steps.ingest import ingest

PERSONAL = ("PN", "DA", "DT", "UI", "LO", "SH", "LT", "ST", "UT", "UC", "AE")
PERSONAL_TAGS = (
    "PatientName", "PatientBirthDate", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
    "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyID", "InstitutionName",
    "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StationName",
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "FrameOfReferenceUID", "PatientComments",
    "DeviceSerialNumber", "RequestingPhysician", "NameOfPhysiciansReadingStudy", "IssuerOfPatientID",
    "MedicalRecordLocator", "PhysiciansOfRecord", "AdmissionID", "PatientTelephoneNumbers", "MilitaryRank",
    "InstitutionalDepartmentName", "ProtocolName", "DeviceUID", "PerformedProcedureStepID", "FillerOrderNumber",
)  # fmt: skip
"""Beside all names of persons, and all UIDs but those that DICOM itself has registered."""


def config(archive: Path, folder: Path, **changes: object) -> IngestConfig:
    source = {"path": str(archive), "labels": str(folder / "l.csv"), "key_file": str(folder / "private" / "key")}
    return IngestConfig(source=DicomSource(**(source | changes)), min_side_px=1)


def originals(dataset: pydicom.Dataset) -> set[str]:
    """Every value of the elements that name a patient, an examination or a place, in sequences as well."""
    found = set()
    for element in dataset.iterall():
        registered = element.VR == "UI" and str(element.value).startswith("1.2.840.10008.")
        listed = element.keyword in PERSONAL_TAGS and element.VR in PERSONAL
        if listed or element.VR == "PN" or (element.VR == "UI" and not registered):
            values = element.value if element.VM > 1 else [element.value]
            found |= {part for value in values for part in re.split(r"[\^=]", str(value or "")) if part.strip()}
    return {text.strip() for text in found}


def originals_of(archive: Path) -> tuple[set[str], set[str]]:
    """What names patients, examinations and places in the headers of a tar's files, and the paths of the files."""
    secret, paths = set(), set()
    with tarfile.open(archive) as tar:
        for member in (member for member in tar if member.isfile()):
            paths.add(member.name.removeprefix("./"))
            try:
                secret |= originals(pydicom.dcmread(io.BytesIO(tar.extractfile(member).read()), force=True))
            except Exception:  # what pydicom cannot parse, the ingest cannot have copied
                continue
    return secret, paths


def traces(run: Path, secret: set[str], paths: set[str]) -> set[str]:
    """Originals that stand in a run: long ones anywhere, short ones as a text or as a word of one.

    A single digit is no trace: some number of threads or of slices is always one.
    """
    blob, cells = everything_in(run)
    words = {word for cell in cells for word in re.split(r"[^\w.-]+", cell)}
    allowed = {"HEAD", "CHEST", "Modality", "000000000"}  # a term, an element's name and a tar's padding, by accident
    ages = set(attribute_values(run / "catalog", "age_years"))
    names = {Path(path).name for path in paths} - {"LICENSE", "README.txt"}
    long = {text for text in secret | paths | names if len(text) >= 7} - allowed
    short = secret - long - allowed - ages
    return {text for text in long if text.encode() in blob} | {
        text
        for text in short
        if (text in cells and len(text) > 1) or (len(text) > 3 and not text.isdigit() and text in words)
    }


def attribute_values(catalog: Path, name: str) -> list[str]:
    rows = read_table(catalog, "attributes.parquet")
    return rows.loc[rows["name"] == name, "value"].tolist()


def test_no_name_id_date_or_path_of_any_sample_is_in_the_outputs(data_dir: Path, tmp_path: Path) -> None:
    archive = data_dir / "dicom_samples.tar"
    (tmp_path / "l.csv").write_text(TABLE)
    (tmp_path / "private").mkdir()
    write_private(tmp_path / "private" / "key", b"0123456789abcdef" * 2)  # a random one could spell a short id
    options = {"modified_dates": True, "patient_characteristics": True}
    summary = ingest(config(archive, tmp_path, **options), output=tmp_path / "run" / "catalog")
    assert summary.slices > 300
    secret, paths = originals_of(archive)
    assert {"CompressedSamples", "77654033", "1CT1"} <= secret
    assert len({text for text in secret | paths if len(text) >= 7}) > 600
    assert traces(tmp_path / "run", secret, paths) == set()
    ingest(config(archive, tmp_path, deidentify=False), output=tmp_path / "open" / "catalog")
    assert len(traces(tmp_path / "open", secret, paths)) > 300  # where they are, the search finds them


def test_the_map_is_private_lies_beside_the_key_and_leads_back(data_dir: Path, tmp_path: Path) -> None:
    archive = data_dir / "dicom_samples.tar"
    (tmp_path / "l.csv").write_text(TABLE)
    ingest(config(archive, tmp_path), output=tmp_path / "run" / "catalog")
    map_file, key_file = sorted((tmp_path / "private").iterdir(), key=lambda path: path.suffix != ".csv")
    assert (stat.S_IMODE(map_file.stat().st_mode), stat.S_IMODE(key_file.stat().st_mode)) == (0o600, 0o600)
    rows = list(csv.reader(map_file.open()))
    path_of = {uri: path for uri, path, _ in rows[1:]}
    with tarfile.open(archive) as tar:
        assert sorted(path_of.values()) == sorted(one.name.removeprefix("./") for one in tar if one.isfile())
    sources = read_table(tmp_path / "run" / "catalog", "sources.parquet")
    assert sources["uri"].str.fullmatch(r"dicom/[0-9a-f]{32}(#\d+)?").all()
    assert {uri.partition("#")[0] for uri in sources["uri"]} <= set(path_of)
    manifest = read_table(tmp_path / "run" / "catalog", "manifest").merge(sources, on="slice_id")
    labelled = manifest[manifest["label"] == "b"]
    assert [path_of[uri] for uri in labelled["uri"]] == ["pydicom_test_files/test_files/MR_small.dcm"]
    evidence = read_json(tmp_path / "run" / "catalog" / "deidentification.json")
    assert (evidence["files"], evidence["originals_found"], list(evidence["methods"])) == (284, 0, ["113100"])
    assert evidence["originals_checked"] > 500
    assert evidence["patients"] == manifest["patient_id"].nunique()
    assert evidence["elements_withheld"] > 10_000
    assert not (tmp_path / "run" / "catalog" / "attributes.parquet").exists() or set(
        read_table(tmp_path / "run" / "catalog", "attributes.parquet")["name"]
    ) <= {"body_part", "view", "burned_in_text"}


def small(folder: Path) -> Path:
    """Two patients, one with two studies; dates, sex, age and free texts in the headers."""
    generator = np.random.default_rng(0)
    said = {"PatientName": "Roe^Jane", "PatientSex": "F", "PatientAge": "093Y", "BodyPartExamined": "CHEST"}
    for name, patient, day in (
        ("a", "SECRET-1", "20200110"),
        ("b", "SECRET-1", "20200117"),
        ("c", "SECRET-2", "20200110"),
    ):
        pixels = generator.integers(0, 999, (12, 12))
        study = f"1.2.{patient[-1]}.{day}"
        ct(
            folder / "in" / name,
            pixels,
            PatientID=patient,
            StudyDate=day,
            StudyInstanceUID=study,
            ViewPosition="ROE",
            **said,
        )
    (folder / "l.csv").write_text("patient_id,label\nSECRET-1,x\nSECRET-2,y\n")
    return folder / "in"


def attributes(catalog: Path) -> dict[str, dict[str, str]]:
    """Attributes by patient and study."""
    manifest = read_table(catalog, "manifest")
    rows = read_table(catalog, "attributes.parquet").merge(manifest, on="slice_id")
    found: dict[str, dict[str, str]] = {}
    for row in rows.itertuples():
        found.setdefault(f"{row.patient_id} {row.study_id}", {})[row.name] = row.value
    return found


def test_dates_move_by_days_of_each_patients_own_and_the_oldest_become_ninety(tmp_path: Path) -> None:
    options = {"modified_dates": True, "patient_characteristics": True}
    ingest(config(small(tmp_path), tmp_path, **options), output=tmp_path / "run" / "catalog")
    found = attributes(tmp_path / "run" / "catalog")
    assert len(found) == 3
    days: dict[str, list[date]] = {}
    for name, said in found.items():
        days.setdefault(name.partition(" ")[0], []).append(date.fromisoformat(said.pop("study_date")))
        assert said == {"sex": "F", "age_years": "90", "body_part": "CHEST"}
    one, two = sorted(days.values(), key=len)
    assert abs((two[0] - two[1]).days) == 7
    assert min(one[0], *two) < date(2020, 1, 10)
    assert one[0] not in two
    manifest = read_table(tmp_path / "run" / "catalog", "manifest")
    assert manifest.groupby("patient_id")["group_id"].nunique().tolist() == [1, 1]
    assert manifest["group_id"].nunique() == 2


def test_without_the_options_neither_dates_nor_sex_nor_age_stay(tmp_path: Path) -> None:
    ingest(config(small(tmp_path), tmp_path), output=tmp_path / "run" / "catalog")
    found = attributes(tmp_path / "run" / "catalog")
    assert list(found.values()) == [{"body_part": "CHEST"}] * 3


def test_a_public_set_keeps_its_paths_ids_and_texts(tmp_path: Path) -> None:
    ingest(config(small(tmp_path), tmp_path, deidentify=False), output=tmp_path / "run" / "catalog")
    assert read_table(tmp_path / "run" / "catalog", "sources.parquet")["uri"].tolist() == ["in/a", "in/b", "in/c"]
    found = attributes(tmp_path / "run" / "catalog")
    assert found["SECRET-1 1.2.1.20200110"] == {
        "study_date": "2020-01-10", "sex": "F", "age_years": "90", "body_part": "CHEST", "view": "ROE",
    }  # fmt: skip
    assert not (tmp_path / "run" / "catalog" / "deidentification.json").exists()


def test_text_that_the_header_says_is_burned_in_goes_to_quarantine(tmp_path: Path) -> None:
    archive = small(tmp_path)
    ct(archive / "d", np.arange(144).reshape(12, 12), PatientID="SECRET-3", BurnedInAnnotation="YES")
    ingest(config(archive, tmp_path), output=tmp_path / "run" / "catalog")
    quarantine = read_table(tmp_path / "run" / "catalog", "quarantine.parquet")
    assert quarantine["reason"].tolist() == ["burned_in_text"]
    evidence = read_json(tmp_path / "run" / "catalog" / "deidentification.json")
    assert evidence["burned_in_annotation"] == {"YES": 1, "not stated": 3}


def test_one_key_one_set_of_bytes_and_another_key_other_pseudonyms(tmp_path: Path) -> None:
    archive = small(tmp_path)
    first = ingest(config(archive, tmp_path), output=tmp_path / "run" / "catalog")
    assert ingest(config(archive, tmp_path), output=tmp_path / "again" / "catalog") == first
    made = [
        {
            path.name: path.read_bytes()
            for path in (tmp_path / run / "catalog").rglob("*")
            if path.is_file() and not is_exempt(path)
        }
        for run in ("run", "again")
    ]
    assert made[0] == made[1]
    stamp = (tmp_path / "run" / "catalog" / "run.json").stat().st_mtime_ns
    ingest(config(archive, tmp_path), output=tmp_path / "run" / "catalog")
    assert (tmp_path / "run" / "catalog" / "run.json").stat().st_mtime_ns == stamp
    other = config(archive, tmp_path, key_file=str(tmp_path / "elsewhere" / "key"))
    ingest(other, output=tmp_path / "other" / "catalog")
    one, two = (set(read_table(tmp_path / run / "catalog", "manifest")["patient_id"]) for run in ("run", "other"))
    assert not one & two


def test_a_key_that_protects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs a key_file"):
        DicomSource(path="x")
    archive = small(tmp_path)
    with pytest.raises(ConfigError, match="lies in the run's folder"):
        ingest(config(archive, tmp_path, key_file=str(tmp_path / "run" / "k")), output=tmp_path / "run" / "catalog")
    with pytest.raises(ConfigError, match="lies in the archive"):
        ingest(config(archive, tmp_path, key_file=str(archive / "k")), output=tmp_path / "run" / "catalog")
    assert not (archive / "k").exists()
    key = tmp_path / "key"
    key.write_bytes(b"short")
    key.chmod(0o600)
    with pytest.raises(ConfigError, match="5 bytes are no key"):
        read_key(key)
    key.write_bytes(bytes(40))
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(key)


def test_a_key_is_made_once_and_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        first = read_key(tmp_path / "new" / "key")
        write_private(tmp_path / "new" / "key", b"other", exclusive=True)
    finally:
        os.umask(before)
    assert read_key(tmp_path / "new" / "key") == first
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_pseudonyms_tell_kinds_apart_and_days_lie_in_two_years() -> None:
    names = Pseudonyms(bytes(range(32)))
    assert len({names.patient("1"), names.study("1"), names.path("dicom", "1").partition("/")[2]}) == 3
    assert names.patient(None) is names.patient("") is names.shifted(date(2020, 1, 1), None) is None
    shifts = {
        (date(2020, 1, 1) - (names.shifted(date(2020, 1, 1), str(patient)) or date.max)).days for patient in range(500)
    }
    assert 1 <= min(shifts) < 20
    assert 700 < max(shifts) <= 730


@pytest.mark.parametrize(
    ("text", "years"), [("063Y", 63), ("093Y", 90), ("030M", 2), ("104W", 2), ("400D", 1), ("63", None), (None, None)]
)
def test_ages_become_whole_years(text: str | None, years: int | None) -> None:
    assert parse_age(text) == years


@pytest.mark.parametrize("text", [None, "", "20201301", "2020-01-01", "18500101", "Roe"])
def test_what_is_no_date_is_none(text: str | None) -> None:
    assert parse_day(text) is None
