"""The feature repository: facts with their times, joined as of any time, brought online, looked up by id."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from feature_runs import (
    START,
    drawn_history,
    export_at,
    ids,
    iso,
    write_clusters,
    write_labels,
    write_run,
    write_wave,
)
from label_stores import Clock, enrol, publish_images, read_one, take

from scanloop.artifacts import read_table
from scanloop.errors import ArtifactError
from scanloop.features.labels import labels_at
from scanloop.features.offline import read_labels, write
from scanloop.features.repository import apply
from scanloop.features.training_set import training_set
from scanloop.features.views import files_of
from scanloop.labelling.export import export
from scanloop.labelling.reading import answer, withdraw
from scanloop.labelling.store import Store
from scanloop.point_in_time import known_at

SLICES = ids(12)
LATE = START + timedelta(days=30)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    apply(tmp_path / "features")
    return tmp_path / "features"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", SLICES, {SLICES[0]: "normal", SLICES[1]: "lesion"})


def written(repository: Path, run: Path, history: pd.DataFrame) -> None:
    """Write an export of each minute at which somebody read."""
    for minute in sorted(history["minute"].unique()):
        write_labels(run, export_at(history, minute))
        write(repository, run)


@pytest.mark.parametrize("seed", range(2))
def test_the_join_finds_what_merge_asof_and_a_plain_loop_find_before_at_and_after_each_reading(
    seed: int, repository: Path, run: Path
) -> None:
    history = drawn_history(seed)
    written(repository, run, history)
    moments = sorted(history["minute"].unique())
    for minute in (moments[0] - 1, moments[len(moments) // 2], moments[len(moments) // 2] + 0.5, moments[-1]):
        at = START + timedelta(minutes=float(minute))
        found = training_set(repository, at, SLICES, views=("label",)).set_index("slice_id")
        right = history.assign(at=pd.to_datetime(history["as_of"], utc=True)).sort_values("at")
        asked = pd.DataFrame({"slice_id": SLICES, "at": pd.Timestamp(at).as_unit("ns")})
        expected = pd.merge_asof(asked, right, on="at", by="slice_id").set_index("slice_id")
        for slice_id in SLICES:
            past = [row for row in history.itertuples() if row.slice_id == slice_id and row.minute <= minute]
            last = max(past, key=lambda row: row.minute, default=None)
            of_loop = (None, None) if last is None else (last.label, last.as_of)
            of_merge = tuple(None if pd.isna(one) else one for one in expected.loc[slice_id, ["label", "as_of"]])
            row = found.loc[slice_id]
            assert (row["label"], row["as_of"]) == of_loop == of_merge
            assert (row["state"] is None) == (last is None)


@pytest.mark.parametrize("seed", [3])
def test_the_labels_of_the_repository_are_those_of_the_rule_that_retrain_follows(
    seed: int, repository: Path, run: Path, tmp_path: Path
) -> None:
    history = drawn_history(seed)
    written(repository, run, history)
    for minute in (15, 30):
        at = START + timedelta(minutes=minute)
        labels_at(repository, at, tmp_path / str(minute) / "labels")
        found = read_table(tmp_path / str(minute) / "labels", "labels.parquet")
        expected = known_at(history, iso(at)).sort_values("slice_id", ignore_index=True)
        assert found[["slice_id", "label", "as_of"]].equals(expected[["slice_id", "label", "as_of"]])
        assert found["readers"].eq(1).all()


def test_a_slice_of_which_one_view_knows_later_facts_alone_keeps_what_the_others_know(
    repository: Path, run: Path
) -> None:
    history = pd.DataFrame({"slice_id": [SLICES[0]], "label": ["lesion"], "as_of": [iso(LATE)]})
    write_labels(run, history)
    write(repository, run)
    early = training_set(repository, START + timedelta(minutes=1))
    assert early["slice_id"].tolist() == SLICES[:2]
    assert early["given_label"].tolist() == ["normal", "lesion"], "known since the ingest"
    assert early["label"].tolist() == early["shard"].tolist() == [None, None]
    assert early["cluster"].isna().all(), "triage was two hours later"
    late = training_set(repository, LATE)
    assert late["label"].tolist() == ["lesion", None]
    assert late["cluster"].tolist() == [0, 1]
    assert str(late["row"].dtype) == "Int64"


def test_a_wave_is_known_from_its_labels_on_and_its_later_labels_are_not_in_its_set(
    repository: Path, run: Path
) -> None:
    times = [START + timedelta(hours=hour) for hour in (10, 20)]
    rows = pd.DataFrame({"slice_id": SLICES[2:4], "label": "lesion", "as_of": [iso(one) for one in times]})
    write_labels(run, rows)
    write_wave(run, SLICES[4:], 1, times[0], times[1] + timedelta(hours=9))  # scored long after the second label
    write(repository, run)
    found = training_set(repository, times[0]).set_index("slice_id")
    assert found.loc[SLICES[4:], "wave"].eq(1).all()
    assert found.loc[SLICES[2], "label"] == "lesion"
    assert found.loc[SLICES[3], "label"] is None
    assert "f" * 64 not in found.index, "a labelled slice is in no wave"


def test_a_withdrawn_label_counts_no_more_and_an_oracles_other_queue_withdraws_none(
    repository: Path, run: Path
) -> None:
    times = [iso(START + timedelta(hours=hour)) for hour in (10, 20, 30)]
    write_labels(run, pd.DataFrame({"slice_id": SLICES[:2], "label": "lesion", "as_of": times[:2]}))
    write(repository, run)
    oracle = pd.DataFrame({"slice_id": SLICES[2:3], "label": "normal", "as_of": times[2:]})
    write_labels(run, oracle, source="hidden labels")
    assert write(repository, run)["label"] == 1
    assert training_set(repository, LATE, SLICES[:1])["label"].tolist() == ["lesion"]
    write_labels(
        run, pd.concat([oracle, pd.DataFrame({"slice_id": [SLICES[1]], "label": "lesion", "as_of": times[1]})])
    )
    assert write(repository, run)["label"] == 1, "the one that was withdrawn"
    later = training_set(repository, LATE, SLICES[:1])
    assert (later["state"].tolist(), later["label"].tolist()) == (["withdrawn"], [None])
    before = training_set(repository, START + timedelta(hours=29), SLICES[:1])
    assert before["label"].tolist() == ["lesion"]


def test_the_same_artifacts_add_nothing_and_two_labels_of_one_time_are_refused(repository: Path, run: Path) -> None:
    rows = pd.DataFrame({"slice_id": SLICES[:2], "label": "lesion", "as_of": iso(START)})
    write_labels(run, rows)
    write_wave(run, SLICES[4:], 1, START, LATE)
    first = write(repository, run)
    assert first == {"given": 2, "embedding": 12, "cluster": 12, "pseudo_label": 8, "label": 2}
    bytes_before = {path: path.read_bytes() for path in repository.rglob("*.parquet")}
    assert set(write(repository, run).values()) == {0}
    assert {path: path.read_bytes() for path in repository.rglob("*.parquet")} == bytes_before
    write_labels(run, rows.assign(label=["lesion", "normal"]))
    with pytest.raises(ArtifactError, match="another oracle"):
        write(repository, run)
    assert len(read_labels(repository)) == 2


def test_an_artifact_made_again_as_of_one_time_takes_its_place_and_one_of_another_time_stands_beside(
    repository: Path, run: Path
) -> None:
    write(repository, run)
    write_clusters(run, SLICES, [7] * 12, START + timedelta(hours=2), key="again")
    write(repository, run)
    assert len(files_of(repository, "cluster")) == 1
    write_clusters(run, SLICES, [8] * 12, LATE, key="later")
    write(repository, run)
    assert training_set(repository, LATE - timedelta(seconds=1))["cluster"].eq(7).all()
    assert training_set(repository, LATE)["cluster"].eq(8).all()


def test_the_repository_gives_back_the_label_stores_own_exports_corrected_and_withdrawn_ones_included(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    run, repository = write_run(tmp_path / "run", ids(3)), tmp_path / "features"
    apply(repository)
    publish_images(store, tmp_path, 4)
    enrol(store, "anna")
    first = read_one(store, "anna", "pneumonia")
    moments: list[datetime] = []

    def exported() -> None:
        export(store, run / "labels")
        write(repository, run)
        moments.append(clock.now)
        clock.move(minutes=1)

    exported()
    read_one(store, "anna", "unsure")
    exported()
    back = withdraw(store, "anna", first.task)
    clock.move(minutes=1)
    answer(store, "anna", back.task, "normal", back.token)
    read_one(store, "anna", "normal")
    exported()
    withdraw(store, "anna", first.task)
    clock.move(minutes=1)
    other = take(store, "anna", beside=[first.task])
    answer(store, "anna", other.task, "pneumonia", other.token)
    exported()
    counts = []
    for number, moment in enumerate(moments):
        export(store, tmp_path / "own" / str(number), moment)
        own = read_table(tmp_path / "own" / str(number), "labels.parquet").sort_values("slice_id", ignore_index=True)
        labels_at(repository, moment.astimezone(UTC), tmp_path / "joined" / str(number))
        joined = read_table(tmp_path / "joined" / str(number), "labels.parquet")
        assert joined.equals(own), f"export {number}"
        counts.append(len(own))
    assert counts == [1, 2, 3, 3]
