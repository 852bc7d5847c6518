"""Labels as of any time: what is read or withdrawn later changes nothing, equal states give equal bytes."""

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from label_stores import CLASSES, START, Clock, enrol, publish_images, read_one, slice_ids, take

from scanloop.artifacts import is_exempt, read_json, read_table
from scanloop.build import read_key, read_summary
from scanloop.errors import LabellingError, RoleError
from scanloop.labelling.adjudication import adjudicate, disputes
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.export import export
from scanloop.labelling.reading import answer, withdraw
from scanloop.labelling.store import Store
from scanloop.labelling.waves import close_wave
from scanloop.learning.dataset import answers


def labels(store: Store, folder: Path, as_of: datetime | None = None) -> pd.DataFrame:
    export(store, folder, as_of)
    return read_table(folder, "labels.parquet")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not is_exempt(path)}


def disagreeing(store: Store, tmp_path: Path) -> int:
    """One image that two readers read differently, and an adjudicator; the number of the task."""
    publish_images(store, tmp_path, 2, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    enrol(store, "ada", "adam", role="adjudicator")
    task = read_one(store, "anna", "normal").task
    assert read_one(store, "ben", "pneumonia").task == task
    return task


def test_an_export_as_of_a_time_never_changes_whatever_is_read_or_withdrawn_later(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    publish_images(store, tmp_path, 6, audit=1)
    enrol(store, "anna")
    first = read_one(store, "anna", "pneumonia")
    clock.move(minutes=1)
    read_one(store, "anna", "bad image")
    then = clock.now
    before = labels(store, tmp_path / "then", then)
    assert before["label"].tolist() == ["pneumonia", None]
    assert before["purpose"].tolist() == ["audit", "train"]
    assert before["as_of"].tolist() == ["2026-03-01T08:00:00.000000Z", "2026-03-01T08:01:00.000000Z"]
    read_one(store, "anna", "normal")  # at the very instant of the export
    back = withdraw(store, "anna", first.task)
    answer(store, "anna", back.task, "normal", back.token)
    labels(store, tmp_path / "again", then)
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "then")
    clock.move(minutes=1)
    assert labels(store, tmp_path / "now")["label"].tolist() == ["normal", None, "normal"]
    assert labels(store, tmp_path / "earlier", START)["label"].tolist() == ["pneumonia"]
    assert labels(store, tmp_path / "before", START - timedelta(hours=1)).empty


def test_equal_states_are_one_artifact_and_the_time_to_come_has_none(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    publish_images(store, tmp_path, 3)
    enrol(store, "anna")
    read_one(store, "anna", "normal")
    export(store, tmp_path / "one")
    clock.move(days=1)
    export(store, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    read_one(store, "anna", "normal")
    export(store, tmp_path / "three")
    assert read_key(tmp_path / "one") == read_key(tmp_path / "two") != read_key(tmp_path / "three")
    with pytest.raises(LabellingError, match="not over"):
        export(store, tmp_path / "four", clock.now + timedelta(minutes=1))


def test_steps_read_the_artifact_as_they_read_the_oracles(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 3, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    for given in ("pneumonia", "unsure"):
        read_one(store, "anna", given)
        read_one(store, "ben", given)
    summary = export(store, tmp_path / "labels")
    assert (summary.answered, summary.queued, summary.price_eur) == (2, 3, 2.20)
    assert read_summary(tmp_path / "labels") == vars(summary)
    frame = answers(tmp_path / "labels", pd.DataFrame({"slice_id": slice_ids(3)[2:]}))
    assert frame[["slice_id", "label", "readers", "agreement", "adjudicated"]].to_dict("records") == [
        {"slice_id": "slice-00001", "label": "pneumonia", "readers": 2, "agreement": 1.0, "adjudicated": False},
        {"slice_id": "slice-00002", "label": None, "readers": 2, "agreement": 1.0, "adjudicated": False},
    ]


def test_readings_that_differ_wait_for_an_adjudicator_who_gave_neither(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    task = disagreeing(store, tmp_path)
    assert labels(store, tmp_path / "open").empty
    assert read_json(tmp_path / "open" / "labels.json")["disputed"] == 1
    (dispute,) = disputes(store, "ada")
    assert (dispute.task, dispute.answers, dispute.classes) == (task, ("normal", "pneumonia"), tuple(CLASSES))
    for refused in (lambda: disputes(store, "anna"), lambda: adjudicate(store, "anna", task, "normal")):
        with pytest.raises(RoleError, match="needs the role adjudicator"):
            refused()
    for number, comment in ((2**40, ""), (task, "a\0b"), (task, "x" * 2001), (99, "")):
        with pytest.raises(LabellingError):
            adjudicate(store, "ada", number, "normal", comment)
    clock.move(minutes=1)
    decided = adjudicate(store, "ada", task, "pneumonia", "consolidation at the left base")
    assert adjudicate(store, "ada", task, "pneumonia", "consolidation at the left base") == decided
    assert disputes(store, "ada") == []
    (row,) = labels(store, tmp_path / "done").to_dict("records")
    assert (row["label"], row["readers"], row["agreement"], row["adjudicated"]) == ("pneumonia", 2, 0.5, True)
    assert row["as_of"] == "2026-03-01T08:01:00.000000Z"
    with pytest.raises(LabellingError, match="decide again"):
        withdraw(store, "anna", task)
    clock.move(minutes=1)
    adjudicate(store, "adam", task, "normal")
    assert labels(store, tmp_path / "later")["label"].tolist() == ["normal"]
    assert labels(store, tmp_path / "as it was", decided.at)["label"].tolist() == ["pneumonia"]


def test_nobody_adjudicates_what_they_read_nor_what_nobody_disputes(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 2, policy=DoubleReading("all"))
    enrol(store, "anna")
    enrol(store, "ada", role="adjudicator")
    task = read_one(store, "anna", "normal").task
    with pytest.raises(LabellingError, match="do not disagree"):
        adjudicate(store, "ada", task, "normal")
    assert read_one(store, "ada", "pneumonia").task == task
    assert disputes(store, "ada") == []
    with pytest.raises(RoleError, match="yourself"):
        adjudicate(store, "ada", task, "normal")


def test_an_adjudicator_is_asked_when_all_readings_are_there_and_not_before(store: Store, tmp_path: Path) -> None:
    publish_images(store, tmp_path, 1, policy=DoubleReading("all", readings=3))
    enrol(store, "anna", "ben", "carl")
    enrol(store, "ada", role="adjudicator")
    for name, given in (("anna", "normal"), ("ben", "pneumonia")):
        task = read_one(store, name, given).task
        assert disputes(store, "ada") == []
        with pytest.raises(LabellingError, match="do not disagree"):
            adjudicate(store, "ada", task, "normal")
    read_one(store, "carl", "normal")
    assert [one.answers for one in disputes(store, "ada")] == [("normal", "pneumonia", "normal")]
    adjudicate(store, "ada", task, "normal")
    assert labels(store, tmp_path / "labels")["agreement"].tolist() == [2 / 3]


def test_a_withdrawn_answer_ends_the_dispute_until_the_next(store: Store, tmp_path: Path) -> None:
    task = disagreeing(store, tmp_path)
    back = withdraw(store, "ben", task)
    assert disputes(store, "ada") == []
    answer(store, "ben", task, "normal", back.token)
    assert disputes(store, "ada") == []
    assert labels(store, tmp_path / "labels")["label"].tolist() == ["normal"]


def test_a_closed_wave_counts_with_the_readings_at_hand(store: Store, tmp_path: Path, clock: Clock) -> None:
    publish_images(store, tmp_path, 3, policy=DoubleReading("all", readings=3))
    enrol(store, "anna", "ben")
    enrol(store, "cleo", role="curator")
    for given in ("normal", "pneumonia"):
        read_one(store, "anna", given)
    read_one(store, "ben", "pneumonia")
    late = take(store, "ben")
    assert labels(store, tmp_path / "open").empty
    clock.move(minutes=1)
    with pytest.raises(RoleError):
        close_wave(store, "anna")
    assert close_wave(store, "cleo") == 1
    assert [one.answers for one in disputes(store, "cleo")] == [("normal", "pneumonia")]
    table = labels(store, tmp_path / "closed")
    assert table[["slice_id", "readers"]].to_numpy().tolist() == [["slice-00002", 1]]
    assert table["as_of"].tolist() == ["2026-03-01T08:01:00.000000Z"], "it came to count when the wave was closed"
    answer(store, "ben", late.task, "pneumonia", late.token)
    assert labels(store, tmp_path / "late")["readers"].tolist() == [2]
    assert close_wave(store, "cleo") is None
