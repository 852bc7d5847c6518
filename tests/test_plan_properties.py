"""What holds of every plan: linear in images, never cheaper with larger ones, never below nothing."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan

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
    in_buckets = sum(found.bucket(bucket) for bucket in ("compute", "storage", "labels"))
    assert abs(found.spent - in_buckets) <= found.spent * Decimal("1e-25")  # of 28 digits; in another order
    assert isinstance(found.total, Decimal)


@settings(max_examples=30, deadline=None)
@given(requests, st.integers(1, 10**8), st.integers(1, 10**8))
def test_more_images_never_cost_less(values: dict[str, object], one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert plan(**values, images=low).total <= plan(**values, images=high).total
