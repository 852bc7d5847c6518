"""Plans of an archive of four million images: what the tests of plans share."""

from decimal import Decimal

from scanloop.money.plan import Plan, price_archive
from scanloop.money.plan_request import PlanRequest
from scanloop.money.prices import load_prices
from scanloop.money.throughput import load_throughput

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
