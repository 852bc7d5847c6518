"""`scanloop plan`: the command that prices an archive, and the table that it prints."""

import inspect
import json
from decimal import Decimal
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from scanloop.errors import BudgetError, ConfigError
from scanloop.faults import listed
from scanloop.money.plan import Plan, price_archive
from scanloop.money.plan_request import PlanRequest
from scanloop.money.prices import load_prices
from scanloop.money.throughput import load_throughput

DEFAULT_GPU = "t4"
EXAMPLES = """Examples:

scanloop plan --images 4000000 --bytes-per-image 40000 --gpu t4

scanloop plan --images 4000000 --bytes-per-image 40000 --gpu l4 --market on-demand --nodes 4 --cap 2500 --json

scanloop plan --images 4000000 --bytes-per-image 24700 --node cpu-2core --images-per-second 350 --images-per-object 1000

scanloop plan --images 100000 --bytes-per-image 40000 --set labels=500 --set months=3 --bucket labels=300
"""

OPTIONS = {"images", "bytes_per_image", "gpu", "node", "market", "nodes", "images_per_second", "images_per_object"}
SETTABLE = {
    name: field for name, field in PlanRequest.model_fields.items() if name not in OPTIONS | {"cap_eur", "buckets"}
}
"""Assumptions without an option of their own."""


def plan(  # noqa: PLR0913  an option for each figure that is asked for most; the others go through --set
    *,
    images: Annotated[str, typer.Option(metavar="N", help="Images in the archive")],
    bytes_per_image: Annotated[str, typer.Option(metavar="N", help="Mean size of an image as it comes in")],
    gpu: Annotated[
        str | None, typer.Option(help="Type of GPU that embeds: t4, l4, a10g, a100, h100 (default: t4)")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Row of the price table instead of a GPU: cpu-2core, ...")] = None,
    market: Annotated[str | None, typer.Option(help="spot or on-demand (default: spot)")] = None,
    nodes: Annotated[str | None, typer.Option(metavar="N", help="Nodes that embed side by side (default: 1)")] = None,
    images_per_second: Annotated[
        str | None, typer.Option(metavar="RATE", help="What you measured on one node, reading included")
    ] = None,
    images_per_object: Annotated[
        str | None, typer.Option(metavar="N", help="Images in one object of the archive (default: 1)")
    ] = None,
    cap: Annotated[str | None, typer.Option(metavar="EUR", help="Most that may be spent (default: 5000)")] = None,
    bucket: Annotated[
        list[str] | None, typer.Option(help="Most for compute, storage or labels, for example labels=1500")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other assumption, for example months=3, labels=500, encoder=squeezenet1_1"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Price an archive before anything runs: hours, requests, storage, labels, euros.

    Every figure says what it assumes; what is not given is an assumption of the budget plan or of the tables of prices
    and throughput. Ends with 8 when the total is above the cap, or a kind of spending above its bucket.
    """
    given = {
        "images": images, "bytes_per_image": bytes_per_image, "gpu": gpu, "node": node, "market": market,
        "nodes": nodes, "images_per_second": images_per_second, "images_per_object": images_per_object, "cap_eur": cap,
    }  # fmt: skip
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if gpu is None and node is None:
        values["gpu"] = DEFAULT_GPU
    values |= _pairs("--set", overrides)
    values["buckets"] = _pairs("--bucket", bucket)
    try:
        request = PlanRequest.model_validate(values)
    except ValidationError as error:
        raise ConfigError(listed("plan", error)) from error
    found = price_archive(request, load_prices(), load_throughput())
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        show(found, Console())
    if found.faults:
        raise BudgetError("; ".join(found.faults))


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in given or ())
    if unequal := [text for text in given or () if "=" not in text]:
        raise ConfigError(f"{option} {unequal[0]}: write NAME=VALUE")
    return pairs


def help_text() -> str:
    """Help of the command: what it does, and every assumption that --set changes, with its default."""
    defaults = ", ".join(f"{name}={field.default}" for name, field in SETTABLE.items())
    return f"{inspect.getdoc(plan)}\n\nAssumptions that --set changes: {defaults}"


def show(found: Plan, console: Console) -> None:
    """Print a plan as a table, with totals, hours, counts and goals below it."""
    request = found.request
    title = f"{request.images:,} images of {request.bytes_per_image:,} bytes"
    table = Table("what", "quantity", "EUR", "price", "assumes", title=title, show_lines=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for line in found.lines:
        table.add_row(line.name, f"{_short(line.quantity)} {line.unit}", euros(line.euros), line.price, line.assumes)
    table.add_section()
    table.add_row("sum", "", euros(found.spent))
    table.add_row("reserve", "", euros(found.reserve), f"{request.reserve_share:.0%} of the sum", "kept back, assumed")
    verdict = "over the cap" if found.over_cap else "within the cap"
    table.add_row("total", "", euros(found.total), f"{verdict} of {request.cap_eur:,.2f} EUR", "")
    console.print(table)
    hours = ", ".join(f"{name} {_short(value)}" for name, value in found.hours.items())
    console.print(f"Node-hours: {hours} (elapsed on {request.nodes} nodes, without their start)")
    counts = found.counts
    console.print(
        f"Objects: archive {counts['archive_objects']:,f}, shards {counts['shard_objects']:,f}, vectors "
        f"{counts['vector_objects']:,f}. Stored: {euros(found.storage_per_month)} EUR a month"
    )
    for goal in found.goals:
        told = {None: "not judged", True: "met", False: "missed"}[goal.met]
        amount = "" if goal.euros is None else f"{euros(goal.euros)} EUR against "
        console.print(f"Goal, {goal.name}: {told}, {amount}at most {goal.limit:f} EUR ({goal.reason})", highlight=False)
    console.print(
        "Not in it: serving, taxes, minimum charges, idle nodes, requests of training. Assumed prices are no offers."
    )


def euros(amount: Decimal) -> str:
    """An amount with cents, or with its first two digits where cents would hide it."""
    decimals = 2 if amount >= Decimal("0.1") or not amount else 1 - amount.adjusted()
    return f"{amount:,.{decimals}f}"


def _short(quantity: Decimal) -> str:
    return f"{quantity:,f}" if quantity == quantity.to_integral_value() else f"{quantity:,.2f}"
