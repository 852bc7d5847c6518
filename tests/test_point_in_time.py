"""Labels as they were known at a time, against a plain loop; what a wave of pseudo-labels may know."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from feature_runs import START, drawn_history, export_at, ids, iso
from hypothesis import given
from hypothesis import strategies as st

from scanloop.artifacts import write_json, write_table
from scanloop.errors import ConfigError
from scanloop.learning.dataset import answers, labels_end
from scanloop.point_in_time import BEFORE_ANY, known_at, moment_of, newest

NONE_PUSHED = pd.DataFrame({"slice_id": []}, dtype=object)
READINGS = st.lists(
    st.tuples(st.sampled_from(ids(4)), st.integers(0, 9), st.sampled_from(["lesion", "normal", None])),
    max_size=20,
    unique_by=lambda reading: reading[:2],
)


@given(readings=READINGS, until=st.integers(-1, 10))
def test_of_each_slice_the_last_reading_up_to_a_time_is_known(readings: list, until: int) -> None:
    table = pd.DataFrame(readings, columns=["slice_id", "minute", "label"], dtype=object)
    table["as_of"] = [iso(START + timedelta(minutes=int(minute))) for minute in table["minute"]]
    found = known_at(table, iso(START + timedelta(minutes=until)))
    in_order = sorted(readings, key=lambda reading: reading[1])
    expected = {slice_id: label for slice_id, minute, label in in_order if minute <= until}  # later ones overwrite
    assert dict(zip(found["slice_id"], found["label"], strict=True)) == expected
    assert len(found) == len(expected)
    assert known_at(table, None).equals(table)
    assert newest(table) == (None if not readings else iso(START + timedelta(minutes=max(one[1] for one in readings))))


def test_times_of_any_zone_and_precision_are_compared_as_moments_and_an_unknown_one_is_left_out() -> None:
    times = ["2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00.000001Z", "2026-03-01T08:00:00", None]
    table = pd.DataFrame({"slice_id": list("abcd"), "as_of": times})
    assert known_at(table, "2026-03-01T08:00:00Z")["slice_id"].tolist() == ["a", "c"]
    assert newest(table) == times[1]
    assert newest(table[3:]) is None
    assert moment_of("2026-03-01T08:00:00") == START == moment_of("2026-03-01T10:00:00+02:00")
    with pytest.raises(ConfigError, match="no time"):
        moment_of("yesterday")


def test_a_wave_that_knew_no_label_learns_from_none_and_one_of_an_older_version_from_all(tmp_path: Path) -> None:
    wave, labels = tmp_path / "pseudo_labels", tmp_path / "labels"
    table = pd.DataFrame({"slice_id": ids(2), "label": "lesion", "as_of": [iso(START), iso(START + timedelta(1))]})
    write_table(labels, "labels.parquet", table)
    for known, count in ((None, 0), (iso(START), 1), (iso(START + timedelta(1)), 2)):
        write_json(wave / "certificate.json", {"labels_as_of": known})
        assert labels_end(wave) == (known or BEFORE_ANY)
        assert len(answers(labels, NONE_PUSHED, labels_end(wave))) == count
    write_json(wave / "certificate.json", {"wave": 1})
    assert labels_end(wave) is labels_end(None) is None
    assert len(answers(labels, NONE_PUSHED, None)) == 2


def test_drawn_histories_have_labels_that_were_corrected_and_slices_without_any() -> None:
    for seed in range(4):
        history = drawn_history(seed)
        last = export_at(history, 10**6)
        assert len(last) < len(history)
        assert history["label"].isna().any()
        assert len(last) < 10, "a slice without a label"
