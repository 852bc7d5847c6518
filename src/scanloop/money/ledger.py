"""What was spent: node seconds and labels, in decimal euros that are rounded only where they are shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from scanloop.money.prices import NodePrice

MILLISECOND = Decimal("0.001")
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Entry:
    """Time of a node on one artifact.

    Attributes:
        step: Artifact that the time was spent on.
        seconds: Time, in milliseconds' resolution.
        euros: Its price, to 28 digits.
        imported: Whether an earlier run made the artifact and was charged for it; then both are 0.
    """

    step: str
    seconds: Decimal
    euros: Decimal
    imported: bool = False


@dataclass(frozen=True)
class LabelEntry:
    """Labels bought at one price.

    Attributes:
        count: Labels.
        price: Euros per label.
        euros: Count times price.
    """

    count: int
    price: Decimal
    euros: Decimal


@dataclass(frozen=True)
class Ledger:
    """Everything that a run spent, against its cap.

    Attributes:
        node: Row of the price table that the seconds were charged at.
        cap: Most that may be spent, in euros.
        entries: Node time, one line an artifact.
        labels: Labels, one line a price.
    """

    node: NodePrice
    cap: Decimal
    entries: tuple[Entry, ...]
    labels: tuple[LabelEntry, ...]

    @property
    def seconds(self) -> Decimal:
        """Node seconds of all artifacts."""
        return sum((entry.seconds for entry in self.entries), Decimal(0))

    @property
    def node_euros(self) -> Decimal:
        """Price of the node time: the sum of the lines."""
        return sum((entry.euros for entry in self.entries), Decimal(0))

    @property
    def label_count(self) -> int:
        """Labels bought."""
        return sum(entry.count for entry in self.labels)

    @property
    def label_euros(self) -> Decimal:
        """Price of the labels: the exact sum of the lines."""
        return sum((entry.euros for entry in self.labels), Decimal(0))

    @property
    def total(self) -> Decimal:
        """Euros for node time and labels."""
        return self.node_euros + self.label_euros

    @property
    def cap_share(self) -> Decimal:
        """Share of the cap that is spent; above 1 when the run is over it."""
        return self.total / self.cap

    @property
    def over_cap(self) -> bool:
        """Whether more was spent than the cap allows; the cap itself may be spent to the last cent."""
        return self.total > self.cap

    def per_1000(self, slices: int) -> Decimal | None:
        """Euros per 1,000 slices; None without slices."""
        return self.total * 1000 / slices if slices else None

    def as_json(self) -> dict[str, Any]:
        """The ledger as plain values, each number as the float next to it."""
        return {
            "node": self.node.node,
            "price": self.node.model_dump(mode="json") | {"eur_per_hour": float(self.node.eur_per_hour)},
            "entries": [
                {
                    "step": line.step,
                    "seconds": float(line.seconds),
                    "eur": float(line.euros),
                    "imported": line.imported,
                }
                for line in self.entries
            ],
            "label_entries": [
                {"count": line.count, "price_eur": float(line.price), "eur": float(line.euros)} for line in self.labels
            ],
            "seconds": float(self.seconds),
            "node_eur": float(self.node_euros),
            "labels": self.label_count,
            "label_eur": float(self.label_euros),
            "total_eur": float(self.total),
            "cap_eur": float(self.cap),
            "cap_share": float(self.cap_share),
            "over_cap": self.over_cap,
        }


def node_entry(step: str, seconds: float, node: NodePrice) -> Entry:
    """Line for a node's time on one artifact.

    Args:
        step: Artifact that the time was spent on.
        seconds: Time, 0 or more.
        node: Row of the price table.
    """
    spent = Decimal(repr(float(seconds))).quantize(MILLISECOND, ROUND_HALF_UP)
    return Entry(step, spent, spent * node.eur_per_hour / SECONDS_PER_HOUR)


def imported_entry(step: str) -> Entry:
    """Line for an artifact that an earlier run made and was charged for: it costs this run nothing."""
    return Entry(step, Decimal(0), Decimal(0), imported=True)


def label_entries(prices_eur: Iterable[float]) -> tuple[LabelEntry, ...]:
    """Lines for labels, one a price, cheapest first.

    Args:
        prices_eur: Price of each label, in euros.
    """
    counts: dict[Decimal, int] = {}
    for price in prices_eur:
        exact = Decimal(repr(float(price)))
        counts[exact] = counts.get(exact, 0) + 1
    return tuple(LabelEntry(count, price, count * price) for price, count in sorted(counts.items()))
