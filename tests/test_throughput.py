"""The throughput table: each figure says how it is known."""

from pathlib import Path

import pytest
from planned import PRICES, THROUGHPUT
from pydantic import ValidationError

from scanloop.errors import ConfigError
from scanloop.money.throughput import ThroughputTable, load_throughput


def test_every_row_of_the_tables_is_dated_and_says_where_it_comes_from() -> None:
    assert all(row.assumption and row.as_of and row.source for row in (*PRICES.prices, *PRICES.services))
    for rate in THROUGHPUT.rates:
        assert rate.as_of
        assert (rate.n == 0) == (rate.basis == "assumption")
        assert rate.basis != "measured" or rate.device == "cpu-2core", "no GPU was measured"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"n": 0}, "n is 0"),
        ({"as_of": None}, "has a date"),
        ({"images_per_second": 0}, "greater than 0"),
        ({"speed": 3}, "Extra inputs"),
    ],
)
def test_a_rate_that_hides_how_it_is_known_is_refused(change: dict[str, object], fault: str) -> None:
    row = {
        "stage": "ingest", "device": "cpu-2core", "images_per_second": 10, "basis": "measured", "n": 3,
        "as_of": "2026-11-21", "source": "one command on one machine",
    }  # fmt: skip
    assert ThroughputTable.model_validate({"rates": [row]}).of("ingest", "cpu-2core")
    with pytest.raises(ValidationError, match=fault):
        ThroughputTable.model_validate({"rates": [row | change]})
    with pytest.raises(ValidationError, match="listed twice"):
        ThroughputTable.model_validate({"rates": [row, row]})


@pytest.mark.parametrize("text", [None, "rates: [", "", "rates: []", "rates: 3"])
def test_a_file_that_is_no_throughput_table_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "throughput.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_throughput(path)
