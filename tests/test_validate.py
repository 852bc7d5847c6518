import logging
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from scanloop.archive.expectations import expectations, with_derived_columns
from scanloop.artifacts import is_exempt, read_json, read_table, write_table
from scanloop.config import IngestConfig, SyntheticSource, ValidateConfig
from scanloop.errors import ExpectationError
from scanloop.steps.ingest import ingest
from scanloop.steps.validate import ValidateSummary, validate

pytestmark = pytest.mark.filterwarnings("ignore::ImportWarning")  # great-expectations misses optional parts of grpc


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "catalog"
    ingest(IngestConfig(source=SyntheticSource(slices=120, size_px=32), test_share=0.2), output=folder)
    return folder


def test_a_good_catalog_satisfies_everything_and_says_so_twice(
    catalog: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    logging.getLogger("great_expectations").setLevel(logging.NOTSET)
    summary = validate(ValidateConfig(), catalog=catalog, output=tmp_path / "one")
    assert summary == ValidateSummary(slices=120, expectations=17, satisfied=17)
    assert capfd.readouterr().err == ""
    assert not list(temporary.iterdir())
    verdict = read_json(tmp_path / "one" / "validation.json")
    assert verdict["success"]
    assert len({one["name"] for one in verdict["expectations"]}) == 17
    page = (tmp_path / "one" / "data_docs" / "index.html").read_text()
    assert "manifest" in page
    validate(ValidateConfig(), catalog=catalog, output=tmp_path / "two")
    one, two = (
        {
            path.relative_to(root): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and not is_exempt(path)
        }
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


def test_a_violated_expectation_stops_the_step_and_is_named(catalog: Path, tmp_path: Path) -> None:
    config = ValidateConfig(min_labelled_per_class=40, min_slices=500)
    with pytest.raises(ExpectationError) as caught:
        validate(config, catalog=catalog, output=tmp_path / "validation")
    message = str(caught.value)
    assert "2 of 17 expectations are violated" in message
    assert "enough_slices (table): The catalog holds at least 500 slices. Observed: 120." in message
    assert "enough_labels (labels_of_class)" in message
    assert not (tmp_path / "validation").exists()
    docs = Path(message.rpartition(" ")[2])
    assert docs.is_file()
    verdict = read_json(docs.parents[1] / "validation.json")
    violated = {one["name"] for one in verdict["expectations"] if not one["success"]}
    assert violated == {"enough_slices", "enough_labels"}


def planted(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    first = frame["group_id"][0]
    frame.loc[frame["group_id"] == first, "split"] = ["train", "test"]
    frame.loc[2, "label"] = "neither"
    frame.loc[2, "label_source"] = None
    frame.loc[3, "split"] = "elsewhere"
    frame.loc[4, "slice_id"] = frame.loc[5, "slice_id"]
    frame.loc[6, ["offset", "shard"]] = frame.loc[7, ["offset", "shard"]]
    frame.loc[8, "sha256"] = "short"
    frame.loc[9, "length"] = 0
    return frame


def test_each_planted_fault_is_found(catalog: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "catalog"
    damaged.mkdir()
    for name in ("catalog.json", "artifact.json", "sources.parquet", "hidden_labels.parquet"):
        (damaged / name).write_bytes((catalog / name).read_bytes())
    write_table(damaged, "manifest", planted(read_table(catalog, "manifest")))
    refused = pd.DataFrame({"uri": [str(row) for row in range(90)], "reason": "empty_file", "detail": ""})
    write_table(damaged, "quarantine.parquet", refused)
    with pytest.raises(ExpectationError) as caught:
        validate(ValidateConfig(min_labelled_per_class=2), catalog=damaged, output=tmp_path / "validation")
    for name in (
        "group_uncut", "patient_uncut", "label_is_class", "label_has_source", "split_is_known", "slice_stands_once",
        "stored_slice_stands_alone", "source_is_digest", "stored_slice_has_bytes", "little_quarantine", "enough_labels",
    ):  # fmt: skip
        assert f"  {name} (" in str(caught.value)
    assert "for example neither" in str(caught.value)


def test_derived_columns_count_what_they_say(catalog: Path) -> None:
    manifest = read_table(catalog, "manifest")
    frame = with_derived_columns(manifest, read_table(catalog, "sources.parquet"), quarantined=30)
    labels = manifest[(manifest["split"] == "train") & (manifest["label"] == "lesion")]
    assert set(frame.loc[manifest["label"] == "lesion", "labels_of_class"]) == {len(labels)}
    assert frame.loc[manifest["label"].isna(), "labels_of_class"].isna().all()
    uris = len(read_table(catalog, "sources.parquet"))
    assert frame["quarantined_share"][0] == pytest.approx(30 / (uris + 30))
    assert frame["uris"].sum() == uris
    wanted = expectations(ValidateConfig(), ["lesion", "normal"])
    columns = {column for one in wanted for column in one.column.split(", ") if column}
    assert columns <= set(frame.columns)
