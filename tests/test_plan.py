"""The plan of an archive's cost: its lines against sums done by hand, its goal, its refusals."""

from decimal import Decimal
from fractions import Fraction

import pytest
from planned import FOUR_MILLION, PRICES, THROUGHPUT, euros_of, plan
from pydantic import ValidationError

from scanloop.errors import ConfigError
from scanloop.money.plan import price_archive
from scanloop.money.plan_request import PlanRequest
from scanloop.money.prices import PriceTable

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


def test_a_table_without_services_prices_no_archive() -> None:
    bare = PriceTable(prices=PRICES.prices)
    with pytest.raises(ConfigError, match="the table has none"):
        price_archive(PlanRequest(images=1, bytes_per_image=1, gpu="t4"), bare, THROUGHPUT)
