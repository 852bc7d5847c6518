"""Tables of files: what columns say reaches the catalog, what is wrong in a row is a row of the quarantine."""

import csv
import logging
import re
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from test_readers import PNG, folder

from scanloop.archive.readers import RawImage, read
from scanloop.artifacts import QUARANTINE_REASONS, read_table
from scanloop.config import IngestConfig, TableSource
from scanloop.config_file import load_config
from scanloop.errors import ArchiveError, ConfigError
from scanloop.steps.ingest import ingest

ROOT = Path(__file__).parents[1]
FILES = {f"images/{name}.png": PNG + name.encode() for name in "abcdef"} | {"other/a.png": PNG, "other/g.png": PNG}
NIH = {"path": "Image Index", "label": "Finding Labels", "patient_id": "Patient ID"}
NIH_TABLE = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,
b.png,No Finding,0,1,058,M,PA,
c.png,Cardiomegaly|Emphysema,1,1,058,M,PA,
d.png,Pneumonia|No Finding,0,2,081,F,AP,
e.png,Hernia,0,3,005,F,AP,
f.png,,0,4,071,M,PA,
"""


def from_table(root: Path, text: str | bytes, name: str = "table.csv", **source: Any) -> list[RawImage]:
    archive = folder(root / "archive", FILES)
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    config = {"path": str(archive), "table": str(root / name), **source}
    return [raw.loaded() for raw in read(IngestConfig(source=TableSource(deidentify=False, **config)))]


def labels(images: list[RawImage]) -> dict[str, str | None]:
    return {raw.uri.rpartition("/")[2].removesuffix(".png"): raw.label for raw in images}


def test_normal_against_abnormal_by_the_columns_of_the_nih_archive(tmp_path: Path) -> None:
    found = from_table(
        tmp_path, NIH_TABLE, columns=NIH, label_separator="|", classes={"No Finding": "normal"}, other_class="abnormal",
        attributes={"age_years": "Patient Age", "view": "View Position", "follow_up": "Follow-up #"},
    )  # fmt: skip
    assert labels(found) == {"b": "normal", "c": "abnormal", "d": "normal", "e": "abnormal", "f": None}
    assert [raw.uri for raw in found] == [f"archive/images/{name}.png" for name in "bcdef"]
    assert [raw.patient_id for raw in found] == ["1", "1", "2", "3", "4"]
    assert found[1].attributes == {"age_years": "058", "view": "PA", "follow_up": "1"}
    assert all(raw.payload == FILES[raw.uri.removeprefix("archive/")] for raw in found)
    assert all(raw.version for raw in found)


def test_findings_become_the_first_class_that_applies_and_others_are_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classes = {"Pneumonia": "pneumonia", "Emphysema": "lung", "Hernia": "lung"}
    with caplog.at_level(logging.INFO, "scanloop"):
        found = from_table(tmp_path, NIH_TABLE, columns=NIH, label_separator="|", classes=classes)
    assert labels(found) == {"c": "lung", "d": "pneumonia", "e": "lung", "f": None}
    assert "1 rows of other findings and 4 files that no row names are left aside" in caplog.text


def test_csv_tsv_and_parquet_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["images/a.png", "images/b.png"], "label": ["x", None], "n": [1, 2]})
    frame.to_parquet(tmp_path / "source.parquet")
    said = [
        from_table(tmp_path / "one", frame.to_csv(index=False)),
        from_table(tmp_path / "two", frame.to_csv(index=False, sep="\t"), "table.tsv"),
        from_table(tmp_path / "three", (tmp_path / "source.parquet").read_bytes(), "table.parquet"),
        from_table(tmp_path / "four", "\ufeff" + frame.to_csv(index=False)),
    ]
    assert [labels(one) for one in said] == [{"a": "x", "b": None}] * 4


def test_every_wrong_row_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    text = """path,label,patient
images/a.png,x,1
missing.png,x,2
../outside.png,x,3
images/../../table.csv,x,4
/etc/passwd,x,5
C:\\secret.png,x,6
s3://bucket/a.png,x,7
,x,8
images/b.png,=HYPERLINK(1),9
images/c.png,x,@cmd
images/d.png,x,10
images/d.png,y,10
images/e.png,x,11
images/e.png,x,11
a.png,x,12
g.png,-,-5
"""
    columns = {"path": "path", "label": "label", "patient_id": "patient"}
    found = from_table(tmp_path, text, columns=columns)
    refused = [(raw.uri.removeprefix("archive/"), raw.fault.reason) for raw in found if raw.fault]
    assert Counter(reason for _, reason in refused) == {
        "missing_file": 3, "unsafe_cell": 7, "conflicting_labels": 1,
    }  # fmt: skip
    assert {uri: reason for uri, reason in refused if "#row" not in uri} == {
        "missing.png": "missing_file", "a.png": "missing_file", "images/d.png": "conflicting_labels",
    }  # fmt: skip
    assert {reason for _, reason in refused} <= set(QUARANTINE_REASONS)
    kept = [(raw.uri, raw.label, raw.patient_id) for raw in found if not raw.fault]
    assert kept == [
        ("archive/images/a.png", "x", "1"), ("archive/images/e.png", "x", "11"), ("archive/other/g.png", "-", "-5"),
    ]  # fmt: skip
    told = repr([(raw.uri, raw.label, raw.patient_id, str(raw.fault)) for raw in found])
    assert "HYPERLINK" not in told
    assert "passwd" not in told


def test_an_unknown_column_is_a_fault_of_the_configuration_that_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no column 'finding', 'who'; it has path, label"):
        from_table(tmp_path, "path,label\n", columns={"path": "path", "label": "finding", "patient_id": "who"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"columns": {"label": "a"}}, "'path' is needed"),
        ({"columns": {"path": "a", "colour": "b"}}, "colour: not among path, label"),
        ({"other_class": "x"}, "other_class needs classes"),
        ({"label_separator": "|"}, "label_separator needs classes"),
        ({"splits": {"a": "dev"}}, "splits"),
        ({"table": "https://ann:w8-kO@host/a.csv"}, "leave them out"),
    ],
)
def test_a_table_source_that_makes_no_sense_is_refused(values: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as error:
        TableSource(deidentify=False, path="x", **values)
    assert "w8-kO" not in str(error.value)


@pytest.mark.parametrize(("text", "name"), [(b"\xff\xfe\x00", "t.csv"), (b"no parquet", "t.parquet")])
def test_a_table_that_cannot_be_read_is_one_clear_error(tmp_path: Path, text: bytes, name: str) -> None:
    with pytest.raises(ArchiveError, match="not a readable table"):
        from_table(tmp_path, text, name)
    with pytest.raises(ArchiveError, match="cannot be read"):
        from_table(tmp_path / "b", "", table="nowhere.csv")
    with pytest.raises(ArchiveError, match="none of 1 rows names a file"):
        from_table(tmp_path / "c", "path,label\nmissing.png,x\n")


def test_splits_come_from_a_column_and_only_labels_of_training_are_hidden(tmp_path: Path) -> None:
    rows = "".join(
        f"images/{name}.png,{'x' if name < 'd' else 'y'},{'test' if name in 'af' else 'rest'}\n" for name in "abcdef"
    )
    found = from_table(
        tmp_path, f"path,label,part\n{rows}", labelled=2, splits={"test": "test"},
        columns={"path": "path", "label": "label", "split": "part"},
    )  # fmt: skip
    assert [raw.split for raw in found] == ["test", None, None, None, None, "test"]
    assert [bool(raw.label) for raw in found if raw.split == "test"] == [True, True]
    training = [raw for raw in found if raw.split is None]
    assert Counter(raw.label for raw in training) == {"x": 1, "y": 1, None: 2}
    assert Counter(raw.hidden_label for raw in training) == {"x": 1, "y": 1, None: 2}


def catalog(name: str, data_dir: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A row a file: uri, slice, split, label and patient in the catalog that a shipped configuration makes."""
    monkeypatch.setenv("SCANLOOP_DATA", str(data_dir))
    ingest(load_config(ROOT / "configs" / f"{name}.yaml").ingest, output=output)
    return read_table(output, "sources.parquet").merge(read_table(output, "manifest"), on="slice_id")


def crossing(patients: list[str], splits: list[str]) -> list[str]:
    seen = defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        seen[patient].add(split)
    return [patient for patient, own in seen.items() if len(own) > 1]


def test_the_nih_archive_is_split_with_no_patient_on_both_sides(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = catalog("nih_cxr", data_dir, tmp_path / "catalog", monkeypatch)
    with tarfile.open(data_dir / "nih_cxr14_1024.tar") as tar:
        table = tar.extractfile("metadata.csv")
        assert table
        said = {row["file"]: row for row in csv.DictReader(table.read().decode().splitlines())}
    inside = [uri.partition("/")[2] for uri in rows["uri"]]
    assert set(inside) == set(said)
    assert len(inside) == 111
    assert len({said[one]["patient_id"] for one in inside}) == 85
    assert crossing([said[one]["patient_id"] for one in inside], rows["split"].tolist()) == []
    assert set(rows["split"]) == {"train", "test"}
    for one, label in zip(inside, rows["label"], strict=True):
        truth = "normal" if said[one]["finding_labels"] == "No Finding" else "abnormal"
        assert label in (truth, None)
    assert rows["label"].notna().sum() == 60
    assert len(read_table(tmp_path / "catalog", "hidden_labels.parquet")) == 51
    assert len(read_table(tmp_path / "catalog", "quarantine.parquet")) == 0


def test_the_kermany_archive_is_split_with_no_patient_on_both_sides(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = catalog("kermany", data_dir, tmp_path / "catalog", monkeypatch)
    names = [uri.rpartition("/")[2] for uri in rows["uri"]]
    patients = []
    for name in names:  # the number in the name, whatever stands around it
        person = re.match(r"person(\d+)_(bacteria|virus)_\d+(_\d+)?\.jpeg", name)
        series = re.match(r"(NORMAL2-)?IM-(\d+)-\d+(-\d+)?\.jpeg", name)
        assert (person is None) != (series is None), name
        patients.append(f"person{person[1]}" if person else f"IM-{series[2]}")  # type: ignore[index]
    assert len(rows) == 5840
    assert crossing(patients, rows["split"].tolist()) == []
    assert {split: count > 100 for split, count in rows["split"].value_counts().items()} == {
        "train": True,
        "test": True,
    }
    official = [uri.split("/")[1] for uri in rows["uri"]]
    assert set(official) == {"train", "test"}
    cut = Counter(patient[:2] for patient in crossing(patients, official))
    assert cut == {"pe": 170, "IM": 94}, "the published parts do cut patients, as numbers go"
    classes = {uri.split("/")[2] for uri in rows["uri"][rows["label"].notna()]}
    assert classes == {"NORMAL", "PNEUMONIA"}
