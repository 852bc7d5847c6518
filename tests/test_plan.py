"""`scanloop plan`: an archive's price, against sums done by hand, and the arithmetic that earlier plans got wrong."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scanloop.errors import ConfigError
from scanloop.money.plan import Plan, price_archive
from scanloop.money.plan_request import PlanRequest
from scanloop.money.prices import PriceTable, load_prices
from scanloop.money.throughput import ThroughputTable, load_throughput

PRICES, THROUGHPUT = load_prices(), load_throughput()
FOUR_MILLION = 4_000_000


def plan(**values: object) -> Plan:
    """Plan of a bare request: embedding alone, nothing kept, bought, trained or done twice, unless asked for."""
    bare = {
        "images": FOUR_MILLION, "bytes_per_image": 40_000, "gpu": None if "node" in values else "t4",
        "images_per_second": 250, "repeated_share": 0, "months": 0, "train_hours": 0, "labels": 0, "reserve_share": 0,
    }  # fmt: skip
    return price_archive(PlanRequest.model_validate(bare | values), PRICES, THROUGHPUT)


def euros_of(found: Plan, name: str) -> Decimal:
    (line,) = [line for line in found.lines if line.name == name]
    return line.euros


def near(value: Decimal, expected: str, digits: str) -> bool:
    return value.quantize(Decimal(digits)) == Decimal(expected)


# What earlier plans of such an archive got wrong


def test_c1_four_million_images_at_4_ms_are_4_44_gpu_hours_and_not_108() -> None:
    found = plan(nodes=4)
    assert found.hours["embed"] == Decimal(16_000) / 3600
    assert near(found.hours["embed"], "4.44", "0.01")
    assert near(found.hours["embed_elapsed"], "1.11", "0.01"), "four nodes: 1.1 hours, not 27"
    assert near(euros_of(found, "embed"), "1.56", "0.01"), "16,000 s x 0.35 EUR/h"
    assert near(plan(images_per_second=200).hours["embed"], "5.56", "0.01"), "5 ms an image"


def test_c2_four_million_images_at_39_ms_are_43_hours_and_not_173() -> None:
    found = plan(node="cpu-2core", images_per_second=str(1 / Decimal("0.039")))
    assert near(found.hours["embed"], "43.33", "0.01"), "156,000 s"
    assert near(euros_of(found, "embed"), "1.30", "0.01"), "x 0.03 EUR/h"


def test_c3_four_nodes_for_twelve_hours_in_three_cycles_are_144_node_hours_and_not_200() -> None:
    found = plan(train_nodes=4, train_hours=12, train_cycles=3)
    assert found.hours["train"] == 144
    assert euros_of(found, "train") == Decimal("50.40"), "144 h x 0.35 EUR/h"


def test_c4_200_hours_of_t4_and_120_of_a10_cost_130_euros_of_the_3000_set_aside() -> None:
    """Of embedding, as many images as 200 hours take at 4 ms."""
    images = 200 * 3600 * 250
    found = plan(images=images, train_gpu="a10", train_hours=120, train_cycles=1, buckets={"compute": 3000})
    assert euros_of(found, "embed") + euros_of(found, "train") == 70 + 60
    assert found.faults == ()


def test_c5_165_gb_at_half_a_cent_are_83_cents_a_month_and_9_90_a_year_and_not_500() -> None:
    """160 GB of images, and 5 GB that are spread over shards and vectors here."""
    found = plan(
        storage="storage-plan", months=12, images=FOUR_MILLION, bytes_per_image=40_000, shard_bytes_per_image=226,
        dimension=512,
    )  # fmt: skip
    kept = 160 + Fraction(226 * FOUR_MILLION, 10**9) + Fraction(512 * 2 * FOUR_MILLION, 10**9)
    assert kept == 165
    assert found.storage_per_month == Decimal("0.825")
    assert euros_of(found, "store archive") + euros_of(found, "store shards") + euros_of(
        found, "store vectors"
    ) == Decimal("9.90")


def test_c5_requests_on_four_million_small_objects_cost_more_than_embedding_them() -> None:
    """PUT 4,000,000 x 0.005/1000 = 20; GET 4,000,000 x 0.0004/1000 = 1.60; against 1.56 for the GPU."""
    found = plan()
    assert euros_of(found, "upload: write objects") == 20
    assert euros_of(found, "ingest: read objects") == Decimal("1.60")
    packed = plan(images_per_object=1000)
    assert euros_of(packed, "upload: write objects") == Decimal("0.02")
    assert packed.counts["archive_objects"] == 4000


def test_c6_3000_labels_with_their_review_cost_1650_and_break_a_bucket_of_1500() -> None:
    found = plan(labels=3000, buckets={"labels": 1500})
    assert euros_of(found, "labels") == 1650
    assert found.faults == ("labels takes 1650.00 EUR, its bucket holds 1500.00 EUR",)
    assert plan(labels=3000, buckets={"labels": 1650}).faults == ()
    assert plan(labels=3000, review_eur=0, buckets={"labels": 1500}).faults == ()


def test_c7_buckets_that_sum_to_the_cap_leave_nothing_for_a_tenth_in_reserve() -> None:
    """3,000 + 500 + 1,500 spent to the last cent and a tenth on top are 5,500."""
    spent = plan(labels=5000, label_eur="0.95")
    labels = euros_of(spent, "labels")
    assert labels == 5000
    rest = spent.spent - labels
    full = plan(labels=5000, label_eur="0.95", cap_eur=5000 + rest)
    assert not full.over_cap
    reserved = plan(labels=5000, label_eur="0.95", cap_eur=5000 + rest, reserve_share="0.1")
    assert reserved.reserve == (5000 + rest) / 10
    assert reserved.over_cap
    assert "over the cap" in reserved.faults[0]


def test_c8_retraining_every_half_million_costs_twice_what_every_wave_does() -> None:
    eight, four = plan(train_hours=30, train_cycles=8), plan(train_hours=30, train_cycles=4)
    assert euros_of(eight, "train") == 2 * euros_of(four, "train") == 84


def test_c11_the_measured_24_7_kilobytes_give_101_gigabytes_and_not_160() -> None:
    assert near(plan(bytes_per_image=25_293, months=1).counts["archive_gb"], "101.2", "0.1"), "24.7 x 1024 bytes"


# Lines


def test_vectors_of_four_million_images_take_4_096_gigabytes() -> None:
    found = plan(months=1)
    assert found.counts["vector_gb"] == Decimal("4.096")
    assert found.counts["shard_objects"] == found.counts["vector_objects"] == -(-FOUR_MILLION // 512) == 7813


def test_every_line_says_its_price_s_row_and_date_and_what_it_assumes() -> None:
    found = plan(months=12, labels=10, train_hours=1, images_per_second=None, repeated_share="0.1")
    for line in found.lines:
        assert line.assumes
        assert "2026-" in line.price or line.name == "labels", line.name
        assert "assumed" in line.price or line.name == "labels", line.name
    assert {"embed", "ingest", "train", "store archive", "egress", "labels"} < {line.name for line in found.lines}


def test_work_that_spot_nodes_repeat_is_paid_and_that_of_on_demand_nodes_is_not() -> None:
    again = plan(repeated_share="0.25", train_hours=4, train_cycles=1)
    assert again.hours["embed"] == Decimal(16_000) * Decimal("1.25") / 3600
    assert again.hours["train"] == 5
    steady = plan(repeated_share="0.25", market="on-demand", train_hours=4, train_cycles=1)
    assert steady.hours["embed"] == plan().hours["embed"]
    assert steady.hours["train"] == 4
    assert euros_of(steady, "train") == 4 * PRICES.of("gpu-t4-on-demand").eur_per_hour


def test_egress_is_the_share_that_leaves_and_the_images_that_readers_see() -> None:
    found = plan(egress_share="0.5", labels=3000)
    assert found.counts["egress_gb"] == Decimal(80) + Decimal("0.12")
    assert euros_of(found, "egress") == Decimal("80.12") * Decimal("0.09")


def test_without_a_rate_a_gpu_prepares_and_then_runs_the_encoder() -> None:
    found = plan(images_per_second=None)
    prepare, forward = THROUGHPUT.embedding("t4", "cpu-2core", "resnet18", None)
    assert (prepare.stage, forward.stage) == ("prepare", "forward")
    seconds = Fraction(FOUR_MILLION) / Fraction(prepare.images_per_second) + Fraction(FOUR_MILLION) / Fraction(
        forward.images_per_second
    )
    assert float(found.hours["embed"]) == pytest.approx(float(seconds / 3600), rel=1e-12)
    assert found.hours["embed"] > Decimal(FOUR_MILLION) / forward.images_per_second / 3600


def test_the_usual_sum_adds_up_by_hand() -> None:
    found = plan(
        gpu="l4", images=1_000_000, bytes_per_image=30_000, images_per_second=500, repeated_share="0.1", months=6,
        train_hours=30, train_cycles=2, labels=1000, reserve_share="0.1", shard_bytes_per_image=20_000, nodes=2,
    )  # fmt: skip
    ingest_hours = Decimal(1_000_000) / THROUGHPUT.of("ingest", "cpu-2core").images_per_second / 3600  # type: ignore[union-attr]
    by_hand = (
        5 + Decimal("0.4")  # upload and read a million objects
        + (1954 + 1000) * Decimal("0.000005")  # 1,954 shards, 1,000 pages of LIST
        + ingest_hours * Decimal("1.1") * Decimal("0.03")
        + Decimal(2000) / 3600 * Decimal("1.1") * Decimal("0.40")
        + 1954 * Decimal("0.0000004") + 1954 * Decimal("0.000005")
        + 60 * Decimal("1.1") * Decimal("0.35")
        + (30 + 20 + Decimal("1.024")) * 6 * Decimal("0.023")
        + Decimal("0.03") * Decimal("0.09")
        + 550
    )  # fmt: skip
    assert abs(found.spent - by_hand) < Decimal("1e-20")
    assert abs(found.total - by_hand * Decimal("1.1")) < Decimal("1e-20")
    assert found.as_json()["total_eur"] == pytest.approx(float(by_hand) * 1.1, rel=1e-12)


# The goal


def test_the_goal_is_met_from_the_rate_that_brings_embedding_under_ten_cents() -> None:
    """7,813 GET and PUT cost 0.0421902 EUR; the rest of 0.10 EUR buys 6,937 s at 0.03 EUR/h: 576.6 images/s."""
    fast, slow = (plan(node="cpu-2core", images_per_second=rate).goals[0] for rate in (577, 576))
    assert (fast.met, slow.met) == (True, False)
    requests = 7813 * (Decimal("0.005") + Decimal("0.0004")) / 1000
    assert fast.euros is not None
    assert abs(fast.euros - (requests + FOUR_MILLION / Decimal(577) / 3600 * Decimal("0.03"))) < Decimal("1e-20")


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({"node": "cpu-2core", "images_per_second": None}, "--images-per-second"),
        ({"gpu": "t4"}, "CPU node"),
        ({"node": "cpu-2core-on-demand"}, "spot"),
    ],
)
def test_the_goal_is_judged_on_a_rate_measured_on_a_spot_cpu_alone(asked: dict[str, object], missing: str) -> None:
    (goal,) = plan(**asked).goals
    assert goal.met is None
    assert missing in goal.reason


# Refusals


def test_an_unknown_gpu_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'t5'.*a100 \(spot\).*h100 \(on-demand\).*t4 \(spot\)"):
        plan(gpu="t5")


def test_an_encoder_without_a_rate_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"int8 on t4: give --images-per-second.*resnet18 fp16 on t4"):
        plan(images_per_second=None, precision="int8")
    with pytest.raises(ConfigError, match="no throughput of ingest on 'gpu-t4-spot'"):
        plan(ingest_node="gpu-t4-spot")
    with pytest.raises(ConfigError, match="storage-standard"):
        plan(storage="glacier")


@pytest.mark.parametrize(
    "values",
    [
        {"images": 0}, {"images": 10**11}, {"bytes_per_image": -1}, {"images_per_second": "nan"}, {"cap_eur": "inf"},
        {"repeated_share": 2}, {"buckets": {"fun": 1}}, {"labels": -1}, {"gpu": "t4", "node": "cpu-2core"}, {"imgs": 3},
        {"images_per_second": 0},
    ],
)  # fmt: skip
def test_a_request_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        plan(**values)


def test_every_gpu_has_both_prices_and_a_rate() -> None:
    for gpu in ("t4", "l4", "a10g", "a100", "h100"):
        for market in ("spot", "on-demand"):
            assert plan(gpu=gpu, market=market, images_per_second=None).spent > 0
        assert PRICES.of_gpu(gpu, "on-demand").eur_per_hour > PRICES.of_gpu(gpu, "spot").eur_per_hour


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


def test_a_table_without_services_prices_no_archive() -> None:
    bare = PriceTable(prices=PRICES.prices)
    with pytest.raises(ConfigError, match="the table has none"):
        price_archive(PlanRequest(images=1, bytes_per_image=1, gpu="t4"), bare, THROUGHPUT)


# Properties

sizes = st.integers(1, 5_000_000)
shares = st.decimals(0, 1, places=3)
requests = st.fixed_dictionaries(
    {
        "bytes_per_image": sizes,
        "images_per_second": st.decimals("0.01", 100_000, places=2),
        "repeated_share": shares,
        "reserve_share": shares,
        "egress_share": shares,
        "months": st.integers(0, 120),
        "market": st.sampled_from(["spot", "on-demand"]),
        "gpu": st.sampled_from(["t4", "l4", "a10g", "a100", "h100"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 300), st.integers(2, 50))
def test_cost_grows_linearly_with_images(values: dict[str, object], count: int, times: int) -> None:
    """In whole shards and pages, of which objects and requests are counted in whole numbers."""
    images = count * 512 * 1000
    once, often = plan(**values, images=images), plan(**values, images=images * times)
    assert float(often.total) == pytest.approx(float(once.total) * times, rel=1e-15)
    for single, many in zip(once.lines, often.lines, strict=True):
        assert float(many.euros) == pytest.approx(float(single.euros) * times, rel=1e-15), single.name


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 10**9), sizes, sizes, st.integers(0, 10_000))
def test_larger_images_never_cost_less(
    values: dict[str, object], images: int, one: int, other: int, labels: int
) -> None:
    low, high = sorted((one, other))
    cheap = plan(**values | {"bytes_per_image": low}, images=images, labels=labels)
    dear = plan(**values | {"bytes_per_image": high}, images=images, labels=labels)
    assert cheap.total <= dear.total
    for single, larger in zip(cheap.lines, dear.lines, strict=True):
        assert single.euros <= larger.euros


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 10**9), st.integers(0, 10_000), st.integers(0, 100))
def test_nothing_costs_less_than_nothing(values: dict[str, object], images: int, labels: int, cycles: int) -> None:
    found = plan(**values, images=images, labels=labels, train_hours=3, train_cycles=cycles)
    assert all(line.euros >= 0 and line.quantity >= 0 for line in found.lines)
    assert found.total >= found.spent >= 0
    assert found.spent == sum(found.bucket(bucket) for bucket in ("compute", "storage", "labels"))
    assert isinstance(found.total, Decimal)


@settings(max_examples=30, deadline=None)
@given(requests, st.integers(1, 10**8), st.integers(1, 10**8))
def test_more_images_never_cost_less(values: dict[str, object], one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert plan(**values, images=low).total <= plan(**values, images=high).total
