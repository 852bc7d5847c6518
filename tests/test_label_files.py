"""Label Studio and CSV: what leaves tells nobody anything, what comes back is read as it is, faults are listed."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_stores import enrol, take, write_catalog, write_queue
from test_cli import invoke
from test_label_command import ran

from scanloop.artifacts import read_table, write_table
from scanloop.config import IngestConfig, SyntheticSource
from scanloop.errors import LabellingError
from scanloop.labelling import csv_files
from scanloop.labelling.batch import open_batch
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.importing import Foreign
from scanloop.labelling.label_studio import export_projects, labelling_config, read_export
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import publish
from scanloop.steps.ingest import ingest

RECORDED = Path(__file__).parent / "recorded" / "label_studio_1_23_export.json"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty synthetic slices of the classes lesion and normal."""
    output = tmp_path_factory.mktemp("run") / "catalog"
    source = SyntheticSource(seed=3, slices=20, size_px=32, labelled=8)
    ingest(IngestConfig(seed=3, source=source, short_side_px=32), output=output)
    return output


@pytest.fixture
def url(catalog: Path, tmp_path: Path) -> str:
    """A store whose open wave asks for seven of them, read twice where the seed says so."""
    address = f"sqlite:///{tmp_path / 'labels.db'}"
    store = open_store(address)
    ids = read_table(catalog, "manifest")["slice_id"].tolist()[:7]
    publish(store, write_queue(tmp_path, ids), catalog, policy=DoubleReading("share", share=0.8))
    enrol(store, "anna", "ben")
    store.engine.dispose()
    return address


def answers(url: str) -> dict[tuple[int, int], str | None]:
    with open_store(url).reading() as session:
        return {(row.task_id, row.reader_id): row.answer for row in session.execute(standing())}


def test_projects_are_blind_and_hold_only_what_lacks_readings(url: str, catalog: Path, tmp_path: Path) -> None:
    store = open_store(url)
    held = take(store, "anna")
    lacking = {one.task: one.lacking for one in open_batch(store).tasks}
    output = tmp_path / "wave"
    ran("label-studio", "export", "--store", url, "--catalog", catalog, "--output", output, "--projects", 2)
    first, second = (json.loads((output / f"project-{number}.json").read_text()) for number in (1, 2))
    tasks = [[one["data"]["task"] for one in part] for part in (first, second)]
    assert tasks[0] == list(lacking)
    assert {*tasks[1]} == {task for task, count in lacking.items() if count > 1}
    assert len(tasks[1]) > 1
    assert tasks[1] != sorted(tasks[1])
    assert (held.task in tasks[0]) == (lacking.get(held.task, 0) > 0)
    assert not any("predictions" in one for one in first + second)
    manifest = read_table(catalog, "manifest")
    secrets = {*manifest["slice_id"], *manifest["patient_id"].dropna(), *manifest["group_id"]}
    secrets |= {*read_table(catalog, "sources.parquet")["uri"]}
    for path in (one for one in output.rglob("*") if one.is_file()):
        text = path.name + (path.read_text(errors="replace") if path.suffix != ".png" else "")
        assert not any(secret in text for secret in secrets), path
    about = manifest.set_index("slice_id")
    for task in open_batch(store).tasks:
        with PIL.Image.open(output / "images" / task.file) as image:
            assert image.format == "PNG"
            assert image.info == {}
            assert image.size == (about.loc[task.slice_id, "width"], about.loc[task.slice_id, "height"])


def test_predictions_are_in_it_only_when_asked_for(url: str, catalog: Path, tmp_path: Path) -> None:
    batch = open_batch(open_store(url))
    said = {one.slice_id: [0.3, 0.7] for one in batch.tasks[1:]}
    export_projects(
        batch, catalog, tmp_path / "w", projects=1, image_url="https://pictures/", predictions=said, model_version="v1"
    )
    tasks = json.loads((tmp_path / "w" / "project-1.json").read_text())
    assert "predictions" not in tasks[0]
    (found,) = tasks[1]["predictions"]
    assert (found["score"], found["model_version"]) == (0.7, "v1")
    assert found["result"][0]["value"] == {"choices": ["normal"]}
    assert tasks[1]["data"]["image"] == f"https://pictures/{batch.tasks[1].file}"


def test_more_projects_than_readings_are_refused(url: str, catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(LabellingError, match="no image of wave 1 lacks 3 readings"):
        export_projects(open_batch(open_store(url)), catalog, tmp_path / "w", projects=3)
    other = write_catalog(tmp_path)
    write_table(other, "manifest", read_table(catalog, "manifest").head(2))
    with pytest.raises(LabellingError, match="lacks 5 images of the wave"):
        export_projects(open_batch(open_store(url)), other, tmp_path / "w", projects=1)


def test_the_configuration_has_a_key_for_each_of_nine_classes_and_is_xml_whatever_they_are_called() -> None:
    names = ['a"<&>', *(f"class {number}" for number in range(2, 12))]
    root = ElementTree.fromstring(labelling_config(names))
    choices = [(one.get("value"), one.get("hotkey")) for one in root.iter("Choice")]
    keys = [*map(str, range(1, 10)), None, None]
    assert choices == [*zip(names, keys, strict=True), ("unsure", "u"), ("bad image", "b")]


def test_an_export_of_the_real_server_comes_in_once(url: str) -> None:
    told = ran("label-studio", "import", RECORDED, "--reader", "1=anna", "--store", url)
    assert told == "4 readings added, 0 known before, 0 refused"
    assert {task: answer for (task, _), answer in answers(url).items()} == {
        1: "normal", 2: "unsure", 3: "bad image", 4: "lesion",
    }  # fmt: skip
    assert "0 readings added, 4 known before" in ran(
        "label-studio", "import", RECORDED, "--reader", "1=anna", "--store", url
    )
    with pytest.raises(LabellingError, match="no reading of this file could be added"):
        ran("label-studio", "import", RECORDED, "--store", url)


def test_refusals_are_told_once_a_reason(url: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("task,reader,answer\n1,anna,lesion\n" + "".join(f"{task},anna,lesion\n" for task in range(90, 99)))
    told = ran("csv", "import", path, "--store", url)
    assert told.startswith("1 readings added, 0 known before, 9 refused")
    assert told.count("is none of this label store") == 9
    path.write_text("task,reader,answer\n" + "2,eve,lesion\n" * 9)
    with pytest.raises(LabellingError, match="no reading of this file"):
        ran("csv", "import", path, "--store", url)
    output = invoke("label", "csv", "import", str(path), "--store", url).output
    assert output.count("nobody with this name") == 1
    assert "line 6 and 4 more" in output


def test_annotators_are_known_by_e_mail_or_number_and_faulty_annotations_are_refused_not_fatal(tmp_path: Path) -> None:
    tasks = json.loads(RECORDED.read_text())
    first = tasks[0]["annotations"][0]
    who = {"id": 7, "email": "ben@example.org"}
    strange = [
        {**first, "completed_by": who},
        {**first, "completed_by": "7"},
        {**first, "completed_by": None},
        {**first, "result": [*first["result"], *first["result"]]},
        {**first, "result": [{"from_name": "answer", "value": {"choices": [["normal"]]}}]},
        {**first, "result": []},
        {**first, "result": None},
        "nonsense",
    ]
    path = tmp_path / "export.json"
    faulty = [{**tasks[0], "data": None}, {**tasks[0], "data": {"task": True}}, {"data": {"task": 1}}]
    path.write_text(json.dumps([{**tasks[0], "annotations": strange}, *faulty]))
    found = [*read_export(path, {"ben@example.org": "ben", "7": "seven", "1": "anna"})]
    assert [one.reader for one in found[:3]] == ["ben", "seven", None]
    assert [one.answer for one in found[:8]] == ["normal"] * 3 + [None] * 5
    assert [one.task for one in found[8:]] == [None, None, None]
    for text in ("{", "{}", "[1]", "[" * 200_000, '"x"'):
        path.write_text(text)
        with pytest.raises(LabellingError, match="no JSON export"):
            [*read_export(path, {})]


def test_a_table_is_filled_in_and_comes_back(url: str, catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "reading"
    told = ran("csv", "export", "--store", url, "--catalog", catalog, "--output", output)
    text = (output / "tasks.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert f"{len(rows)} readings of wave 1" in told
    assert len(rows) == sum(one.lacking for one in open_batch(open_store(url)).tasks)
    assert rows[0]["answers"] == "lesion | normal | unsure | bad image"
    assert all((output / row["image"]).is_file() for row in rows)
    filled = [row | {"reader": "anna", "answer": "lesion", "comment": 'a;b, "c"'} for row in rows[:2]]
    sink = io.StringIO()
    table = csv.DictWriter(sink, csv_files.COLUMNS, delimiter=";")
    table.writeheader()
    table.writerows([*filled, *rows[2:]])
    (output / "filled.csv").write_text(sink.getvalue())
    told = ran("csv", "import", output / "filled.csv", "--store", url)
    different = len({row["task"] for row in rows[:2]})
    assert told.startswith(f"{different} readings added, {2 - different} known before, 0 refused")


def test_no_cell_that_leaves_is_a_formula_and_what_comes_back_is_the_same_word(
    store: Store, catalog: Path, tmp_path: Path
) -> None:
    classes = ['=HYPERLINK("http://x")', "-minus", "@at", "plain"]
    ids = read_table(catalog, "manifest")["slice_id"].tolist()[:2]
    other = write_catalog(tmp_path, classes)
    write_table(other, "manifest", read_table(catalog, "manifest"))
    (other / "shards").symlink_to(catalog / "shards")
    publish(store, write_queue(tmp_path, ids), other)
    csv_files.export_table(open_batch(store), other, tmp_path / "out")
    text = (tmp_path / "out" / "tasks.csv").read_bytes().decode("utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    lines = [f'1,anna,"{csv_files.defused(name).replace(chr(34), chr(34) * 2)}"' for name in classes]
    (tmp_path / "in.csv").write_text("task,reader,answer\n" + "\n".join(lines))
    assert [one.answer for one in csv_files.read_table(tmp_path / "in.csv")] == classes


@given(st.text())
def test_any_cell_is_defused_and_comes_back(cell: str) -> None:
    assert not csv_files.defused(cell).startswith(csv_files.FORMULAS)
    assert csv_files.fused(csv_files.defused(cell)) == cell


def test_a_table_that_is_none_is_refused_and_strange_rows_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("task,reader,answer\nx,anna,normal\n1.5,anna,normal\n\n,,\n2,anna\n3,anna,normal,too,many\n")
    assert [*csv_files.read_table(path)] == [
        Foreign("line 2", None, "anna", "normal"), Foreign("line 3", None, "anna", "normal"),
        Foreign("line 7", 3, "anna", "normal"),
    ]  # fmt: skip
    for payload in (b"", b"task,answer\n1,normal\n", b"\xff\xfe\x00", np.random.default_rng(0).bytes(999)):
        path.write_bytes(payload)
        with pytest.raises(LabellingError, match=r"lacks the columns|no CSV"):
            [*csv_files.read_table(path)]
    path.write_text('task,reader,answer\n1,anna,"' + "x" * 200_000)
    with pytest.raises(LabellingError, match="field larger"):
        [*csv_files.read_table(path)]


@pytest.mark.parametrize(
    "command", [("label-studio", "export"), ("label-studio", "import"), ("csv", "export"), ("csv", "import")]
)
def test_each_commands_help_has_an_example(command: tuple[str, str]) -> None:
    assert f"Example: scanloop label {' '.join(command)} " in ran(*command, "--help")
