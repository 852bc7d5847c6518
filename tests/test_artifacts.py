import importlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanloop.artifacts import (
    EXEMPT_NAMES,
    KINDS,
    check_artifact,
    count_rows,
    is_exempt,
    read_json,
    read_table,
    write_bytes,
    write_json,
    write_table,
)
from scanloop.cli import ARTIFACT_OF
from scanloop.config import STEPS
from scanloop.errors import ArtifactError
from scanloop.tables import TABLES

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = {
    pa.string(): st.none() | TEXT,
    pa.int64(): st.none() | st.integers(-(2**53), 2**53),
    pa.float64(): st.none() | NUMBER,
    pa.bool_(): st.none() | st.booleans(),
    pa.list_(pa.float64()): st.none() | st.lists(NUMBER, max_size=4),
    pa.list_(pa.string()): st.none() | st.lists(TEXT, max_size=4),
}


def rows_of(schema: pa.Schema) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({field.name: VALUES[field.type] for field in schema}), max_size=6)


def plain(value: Any) -> Any:
    """What a cell says, whichever type pandas has given its column."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_table_comes_back_as_it_was_written(name: str, tmp_path: Path, data: st.DataObject) -> None:
    rows = data.draw(rows_of(TABLES[name]))
    write_table(tmp_path, name, pd.DataFrame(rows, columns=TABLES[name].names, dtype=object))
    found = read_table(tmp_path, name)
    assert list(found.columns) == TABLES[name].names
    assert [{key: plain(value) for key, value in row.items()} for row in found.to_dict("records")] == rows
    assert count_rows(tmp_path, name) == len(rows)
    for field in TABLES[name]:
        if field.type == pa.string():
            assert all(value is None or isinstance(value, str) for value in found[field.name])


def test_missing_columns_become_nulls_and_an_unlabelled_slice_has_none_as_label(tmp_path: Path) -> None:
    write_table(tmp_path, "manifest", pd.DataFrame({"slice_id": ["a", "b"], "label": ["cancer", np.nan]}))
    found = read_table(tmp_path, "manifest")
    assert found["label"].tolist() == ["cancer", None]
    assert found["patient_id"].tolist() == [None, None]


def test_a_column_that_the_schema_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"queue\.parquet: columns \['prize'\] are not in the schema"):
        write_table(tmp_path, "queue.parquet", pd.DataFrame({"slice_id": ["a"], "prize": [1.0]}))
    assert list(tmp_path.iterdir()) == []


def test_the_same_table_is_written_in_the_same_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"slice_id": ["a", "b"], "rank": [1, 2]})
    for folder in ("one", "two"):
        write_table(tmp_path / folder, "queue.parquet", frame)
    one, two = ((tmp_path / folder / "queue.parquet").read_bytes() for folder in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("read", [read_table, count_rows])
def test_a_missing_table_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(ArtifactError, match=r"labels\.parquet is missing; run the step"):
        read(tmp_path, "labels.parquet")


@dataclass(frozen=True)
class Point:
    x: float
    path: Path


def test_json_is_sorted_and_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    payload = {
        "z": np.float32(0.5),
        "a": [math.nan, np.float64("inf"), np.array([[1, 2]]), np.bool_(True)],
        "m": Point(math.nan, Path("here")),
        1: "é",
    }
    write_json(tmp_path / "facts.json", payload)
    text = (tmp_path / "facts.json").read_text()
    found = json.loads(text)
    assert list(found) == sorted(found)
    assert found == {
        "schema_version": 1,
        "z": 0.5,
        "a": [None, None, [[1, 2]], True],
        "m": {"x": None, "path": "here"},
        "1": "é",
    }
    assert text.endswith("}\n")
    assert read_json(tmp_path / "facts.json") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "is missing"), ("{", "is not JSON"), ("[1]", "schema"), ('{"schema_version": 99}', "schema")],
)
def test_json_that_cannot_be_read_says_why(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "facts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArtifactError, match=words):
        read_json(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts.json"
    write_bytes(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scanloop.artifacts.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"facts.json": b"old"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_artifact_without_a_file_is_not_whole_and_the_file_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArtifactError, match=f"no such {kind}"):
        check_artifact(tmp_path / "absent", kind)
    for name in KINDS[kind]:
        (tmp_path / name).touch()
    check_artifact(tmp_path, kind)
    for name in KINDS[kind]:
        (tmp_path / name).rename(tmp_path / "aside")
        with pytest.raises(ArtifactError, match=f"not a whole {kind}: {name} missing"):
            check_artifact(tmp_path, kind)
        (tmp_path / "aside").rename(tmp_path / name)


def test_every_step_fills_the_kind_that_the_command_line_names() -> None:
    assert tuple(ARTIFACT_OF) == STEPS
    of_commands = {"external", "label_errors", "quality", "publication"}  # that no command `scanloop STEP` makes
    assert set(ARTIFACT_OF.values()) | of_commands == set(KINDS)
    for step, kind in ARTIFACT_OF.items():
        module = importlib.import_module(f"scanloop.steps.{step}")
        assert f'@step("{kind}"' in Path(str(module.__file__)).read_text(), step


def test_every_table_belongs_to_a_kind_of_artifact() -> None:
    held = {name for files in KINDS.values() for name in files}
    assert set(TABLES) <= held


def test_only_a_machines_and_a_clocks_facts_are_exempt() -> None:
    assert all(is_exempt(Path("any") / name) for name in (*EXEMPT_NAMES, "report.html"))
    held = {name for files in KINDS.values() for name in files if is_exempt(Path(name))}
    assert held == {"ledger.json", "seen.parquet", "report.html", "drift.html", "environment.json", "publication.json"}
