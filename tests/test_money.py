"""The price table and the ledger: checked rows, and lines that add up."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanloop.errors import ConfigError
from scanloop.money.ledger import Entry, LabelEntry, Ledger, label_entries, node_entry
from scanloop.money.prices import NodePrice, load_prices

T4 = load_prices().of("gpu-t4-spot")


def ledger(cap: str, entries: tuple[Entry, ...] = (), labels: tuple[LabelEntry, ...] = ()) -> Ledger:
    return Ledger(T4, Decimal(cap), entries, labels)


def test_the_table_holds_the_plan_s_prices_and_calls_every_row_an_assumption() -> None:
    rows = load_prices().rows
    assert {"cpu-2core", "gpu-t4-spot", "gpu-a10-spot", "gpu-l4-spot", "gpu-h100-spot"} <= set(rows)
    assert (rows["gpu-t4-spot"].eur_per_hour, rows["gpu-a10-spot"].eur_per_hour) == (Decimal("0.35"), Decimal("0.50"))
    assert all(row.assumption and row.currency == "EUR" for row in rows.values())


def test_an_unknown_node_is_refused_with_the_nodes_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no price for 'gpu-t5'.*cpu-2core.*gpu-t4-spot"):
        load_prices().of("gpu-t5")


def test_a_bad_price_table_lists_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "prices:\n"
        "- {node: a, eur_per_hour: -1, currency: USD, as_of: 2026-01-01, assumption: true, source: a bill of 2026}\n"
        "- {node: b, eur_per_hour: 1, currency: EUR, as_of: someday, assumption: true, source: a bill of May, gpu: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_prices(path)
    for fault in ("prices.0.eur_per_hour", "prices.0.currency", "prices.1.as_of", "prices.1.gpu"):
        assert fault in str(caught.value)


@pytest.mark.parametrize("text", ["prices: [", "", "prices: []", "prices: 3"])
def test_a_price_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_prices(path)


def test_a_missing_price_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prices(tmp_path / "prices.yaml")


def test_a_node_stands_in_the_table_once(tmp_path: Path) -> None:
    row = "- {node: a, eur_per_hour: 1, currency: EUR, as_of: 2026-01-01, assumption: true, source: a bill of 2026}\n"
    path = tmp_path / "prices.yaml"
    path.write_text("prices:\n" + row + row)
    with pytest.raises(ConfigError, match="listed twice: a"):
        load_prices(path)


def test_a_price_in_yaml_is_exact() -> None:
    row = {"node": "a", "eur_per_hour": 0.1, "currency": "EUR", "as_of": "2026-01-01", "assumption": True}
    assert NodePrice.model_validate(row | {"source": "a bill of 2026"}).eur_per_hour == Decimal("0.1")


def test_an_hour_costs_the_price_and_200_hours_of_t4_cost_70_euros() -> None:
    assert node_entry("embeddings", 3600, T4).euros == Decimal("0.35")
    assert node_entry("embeddings", 200 * 3600, T4).euros == Decimal(70)


@given(st.lists(st.integers(min_value=0, max_value=10**10), max_size=30))
def test_the_lines_add_up_to_the_total(milliseconds: list[int]) -> None:
    entries = tuple(node_entry("any", count / 1000, T4) for count in milliseconds)
    exact = Fraction(sum(milliseconds) * 35, 1000 * 3600 * 100)
    assert abs(Fraction(ledger("1", entries).total) - exact) <= exact / 10**25
    assert ledger("1", entries).seconds == Decimal(sum(milliseconds)) / 1000


def test_labels_are_grouped_by_price_and_counted_exactly() -> None:
    lines = label_entries([0.55] * 3000 + [0.1] * 3)
    assert [(line.count, str(line.price), line.euros) for line in lines] == [
        (3, "0.1", Decimal("0.3")),
        (3000, "0.55", Decimal(1650)),
    ]
    assert ledger("5000", labels=lines).total == Decimal("1650.3")


def test_a_price_far_below_a_cent_is_not_rounded_away() -> None:
    (line,) = label_entries([4e-7] * 1_000_000)
    assert (line.price, line.euros) == (Decimal("4E-7"), Decimal("0.4"))
    cheap = T4.model_copy(update={"eur_per_hour": Decimal("0.0001")})
    spent = Ledger(cheap, Decimal(1), tuple(node_entry("embeddings", 0.9, cheap) for _ in range(1000)), ())
    assert float(spent.total) == pytest.approx(0.0001 * 0.9 * 1000 / 3600, rel=1e-15)
    assert spent.per_1000(10**6) == spent.total / 1000
    assert spent.as_json()["cap_share"] == pytest.approx(2.5e-5, rel=1e-15)


def test_the_cap_may_be_spent_to_the_last_cent_and_not_beyond() -> None:
    assert not ledger("1.65", labels=label_entries([0.55] * 3)).over_cap
    assert ledger("1.649999", labels=label_entries([0.55] * 3)).over_cap


def test_the_json_says_what_was_spent_on_what_and_what_share_of_the_cap_that_is() -> None:
    spent = ledger("10", (node_entry("encoder", 7200, T4),), label_entries([0.55, 0.55])).as_json()
    assert spent["entries"] == [{"step": "encoder", "seconds": 7200.0, "eur": 0.7, "imported": False}]
    assert spent["label_entries"] == [{"count": 2, "price_eur": 0.55, "eur": 1.1}]
    assert (spent["total_eur"], spent["cap_share"], spent["over_cap"]) == (1.8, 0.18, False)
    assert spent["price"]["as_of"] == "2026-11-21"


def test_the_price_of_1000_slices_needs_slices() -> None:
    spent = ledger("10", (node_entry("encoder", 7200, T4),))
    assert spent.per_1000(1400) == Decimal("0.5")
    assert spent.per_1000(0) is None
