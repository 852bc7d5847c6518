"""What earlier plans of an archive of four million images got wrong, each sum done again by hand."""

from decimal import Decimal
from fractions import Fraction

from planned import FOUR_MILLION, euros_of, near, plan


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
    found = plan(images=images, train_node="gpu-a10-spot", train_hours=120, train_cycles=1, buckets={"compute": 3000})
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
