"""What an archive will cost before anything runs: lines of quantity times price, each with what it assumes.

Quantities and euros are decimals and are rounded only where they are shown.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, get_args

from scanloop.errors import ConfigError
from scanloop.money.plan_lines import (
    Line,
    archive_lines,
    counts_of,
    embed_request_lines,
    kept_lines,
    label_line,
    repeated_factor,
    train_line,
    work_hours,
    work_line,
)
from scanloop.money.plan_request import Bucket, PlanRequest
from scanloop.money.prices import NodePrice, PriceTable
from scanloop.money.throughput import Rate, ThroughputTable

TRAINING_GPU = "t4"
"""The budget plan's, for want of a measurement of training."""


@dataclass(frozen=True)
class Goal:
    """An amount that is aimed at.

    Attributes:
        name: What is judged.
        limit: Most euros that meet the goal.
        euros: What it will cost; None where it cannot be judged.
        reason: How it was judged, or what is missing.
    """

    name: str
    limit: Decimal
    euros: Decimal | None
    reason: str

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where it cannot be judged."""
        return None if self.euros is None else self.euros <= self.limit


@dataclass(frozen=True)
class Plan:
    """The lines, and what may be spent.

    Attributes:
        request: What was asked.
        lines: What is paid for.
        goals: What is aimed at.
        hours: Node-hours of ingest, embed and train; under embed_elapsed those that pass with all nodes at work.
        counts: Objects, requests and gigabytes.
    """

    request: PlanRequest
    lines: tuple[Line, ...]
    goals: tuple[Goal, ...]
    hours: dict[str, Decimal]
    counts: dict[str, Decimal]

    @property
    def spent(self) -> Decimal:
        """Euros of all lines."""
        return sum((line.euros for line in self.lines), Decimal(0))

    @property
    def reserve(self) -> Decimal:
        """Euros kept back on top of the lines."""
        return self.spent * self.request.reserve_share

    @property
    def total(self) -> Decimal:
        """Lines and reserve: what must fit under the cap."""
        return self.spent + self.reserve

    @property
    def over_cap(self) -> bool:
        """Whether the total is above the cap; the cap itself may be planned to the last cent."""
        return self.total > self.request.cap_eur

    def bucket(self, bucket: Bucket) -> Decimal:
        """Euros of one kind of spending, without the reserve."""
        return sum((line.euros for line in self.lines if line.bucket == bucket), Decimal(0))

    @property
    def storage_per_month(self) -> Decimal:
        """Euros for a month of all that is stored; 0 where nothing is kept for any time."""
        stored = sum((line.euros for line in self.lines if line.name.startswith("store ")), Decimal(0))
        return stored / self.request.months if self.request.months else Decimal(0)

    @property
    def faults(self) -> tuple[str, ...]:
        """Each limit that the plan breaks, in words; empty when it fits."""
        found = [
            f"{bucket} takes {self.bucket(bucket):.2f} EUR, its bucket holds {limit:.2f} EUR"
            for bucket, limit in self.request.buckets.items()
            if self.bucket(bucket) > limit
        ]
        if self.over_cap:
            over = self.total - self.request.cap_eur
            cap = f"the cap of {self.request.cap_eur:.2f} EUR"
            found.append(f"the total of {self.total:.2f} EUR, reserve included, is {over:.2f} EUR over {cap}")
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values, each number as the float next to it."""
        lines = [vars(line) | {"quantity": float(line.quantity), "euros": float(line.euros)} for line in self.lines]
        goals = [
            {
                "name": goal.name,
                "limit_eur": float(goal.limit),
                "eur": None if goal.euros is None else float(goal.euros),
                "met": goal.met,
                "reason": goal.reason,
            }
            for goal in self.goals
        ]
        return {
            "request": self.request.model_dump(mode="json"),
            "lines": lines,
            "hours": {name: float(hours) for name, hours in self.hours.items()},
            "counts": {name: float(count) for name, count in self.counts.items()},
            "storage_eur_per_month": float(self.storage_per_month),
            "buckets_eur": {bucket: float(self.bucket(bucket)) for bucket in get_args(Bucket)},
            "spent_eur": float(self.spent),
            "reserve_eur": float(self.reserve),
            "total_eur": float(self.total),
            "cap_eur": float(self.request.cap_eur),
            "over_cap": self.over_cap,
            "faults": list(self.faults),
            "goals": goals,
        }


def price_archive(request: PlanRequest, prices: PriceTable, throughput: ThroughputTable) -> Plan:
    """Plan of an archive, from its first upload through embedding, training and labels to its months in storage.

    Not in it: serving, people but for the labels, taxes, requests of training, minimum charges, idle nodes.

    Args:
        request: The archive, the nodes and the limits.
        prices: Price table.
        throughput: How fast the nodes are, unless the request says so.

    Raises:
        ConfigError: A table lacks a row that the request needs; the message lists what it has.
    """
    node, ingest_node = _node(request, prices), prices.of(request.ingest_node)
    trainer = prices.of(request.train_node) if request.train_node else prices.of_gpu(TRAINING_GPU, request.market)
    embed_rates, ingest_rates = _embed_rates(request, node, throughput), _ingest_rates(request, throughput)
    counts = counts_of(request)
    hours = {
        "ingest": work_hours(request, ingest_node, ingest_rates),
        "embed": work_hours(request, node, embed_rates),
        "train": request.train_node_hours * repeated_factor(request, trainer),
    }
    embed = (
        work_line("embed", hours["embed"], request, node, embed_rates),
        *embed_request_lines(counts, prices),
    )
    lines = (
        *archive_lines(request, counts, prices),
        work_line("ingest", hours["ingest"], request, ingest_node, ingest_rates),
        *embed,
        train_line(hours["train"], request, trainer),
        *kept_lines(request, counts, prices),
        label_line(request),
    )
    hours["embed_elapsed"] = hours["embed"] / request.nodes
    return Plan(request, lines, (_embedding_goal(request, node, embed),), hours, counts)


def _node(request: PlanRequest, prices: PriceTable) -> NodePrice:
    if request.gpu is not None:
        return prices.of_gpu(request.gpu, request.market)
    return prices.of(request.node or "")


def _embed_rates(request: PlanRequest, node: NodePrice, throughput: ThroughputTable) -> tuple[Rate, ...]:
    if request.images_per_second is None:
        device = node.gpu or node.node
        return throughput.embedding(device, request.ingest_node, request.encoder, request.precision)
    given = Rate(
        stage="embed",
        device=node.node,
        encoder=request.encoder,
        precision=request.precision,
        images_per_second=request.images_per_second,
        basis="given",
        n=0,
        source="given with the request; reading and decoding are taken to be in it",
    )
    return (given,)


def _ingest_rates(request: PlanRequest, throughput: ThroughputTable) -> tuple[Rate, ...]:
    if rate := throughput.of("ingest", request.ingest_node):
        return (rate,)
    known = ", ".join(sorted(row.device for row in throughput.rates if row.stage == "ingest"))
    raise ConfigError(f"no throughput of ingest on {request.ingest_node!r}; the table has {known}")


def _embedding_goal(request: PlanRequest, node: NodePrice, embed: tuple[Line, ...]) -> Goal:
    """Whether embedding this archive, requests included, is as cheap as aimed at; judged on a measurement alone."""
    name = f"embedding {request.images} images on spot CPU nodes, requests included"
    if node.gpu is not None or node.market != "spot":
        return Goal(name, request.goal_eur, None, "not judged: ask for a CPU node on the spot market, --node cpu-2core")
    if request.images_per_second is None:
        return Goal(name, request.goal_eur, None, "not judged: give the rate measured there, --images-per-second")
    euros = sum((line.euros for line in embed), Decimal(0))
    return Goal(name, request.goal_eur, euros, f"judged on the given {request.images_per_second:f} images/s")
