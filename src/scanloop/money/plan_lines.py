"""The lines of a plan: a quantity, its price with row and date, and what the quantity rests on."""

from dataclasses import dataclass
from decimal import Decimal

from scanloop.money.plan_request import Bucket, PlanRequest
from scanloop.money.prices import NodePrice, Price, PriceTable, ServicePrice
from scanloop.money.throughput import SECONDS_PER_HOUR, Rate

GB = Decimal(10**9)
VECTOR_BYTES = 2
LIST_PAGE = 1000
"""Objects that one LIST request tells; it is priced as a PUT."""


@dataclass(frozen=True)
class Line:
    """A quantity at a price.

    Attributes:
        name: What is paid for.
        bucket: Kind of spending that it counts towards.
        quantity: How much of it, in the unit.
        unit: What is counted.
        euros: Its price, to 28 digits.
        price: The price in words, with its row and date.
        assumes: What the quantity rests on.
    """

    name: str
    bucket: Bucket
    quantity: Decimal
    unit: str
    euros: Decimal
    price: str
    assumes: str


def counts_of(request: PlanRequest) -> dict[str, Decimal]:
    """Objects, requests and gigabytes (10^9 bytes) of an archive, its shards and its vectors."""
    objects = -(-request.images // request.images_per_object)
    shards = -(-request.images // request.shard_images)
    counts = {
        "archive_objects": objects,
        "shard_objects": shards,
        "vector_objects": shards,
        "upload_puts": objects,
        "ingest_gets": objects,
        "ingest_puts": shards + -(-objects // LIST_PAGE),
        "embed_gets": shards,
        "embed_puts": shards,
    }
    gigabytes = {
        "archive_gb": request.images * request.bytes_per_image / GB,
        "shard_gb": request.images * request.shard_bytes_per_image / GB,
        "vector_gb": request.images * request.dimension * VECTOR_BYTES / GB,
        "egress_gb": (request.images * request.egress_share + request.labels) * request.bytes_per_image / GB,
    }
    return {name: Decimal(count) for name, count in counts.items()} | gigabytes


def repeated_factor(request: PlanRequest, node: NodePrice) -> Decimal:
    """Time of a node over time of its work: above 1 on spot nodes, which do some work again after a kill."""
    return 1 + request.repeated_share if node.market == "spot" else Decimal(1)


def work_hours(request: PlanRequest, node: NodePrice, rates: tuple[Rate, ...]) -> Decimal:
    """Node-hours for all images through these stages, one after the other."""
    seconds = sum((rate.seconds(request.images) for rate in rates), Decimal(0))
    return seconds * repeated_factor(request, node) / SECONDS_PER_HOUR


def work_line(name: str, hours: Decimal, request: PlanRequest, node: NodePrice, rates: tuple[Rate, ...]) -> Line:
    """Node time for all images through some stages."""
    return node_line(name, hours, node, "; then ".join(rate.told for rate in rates) + _repeated(request, node))


def train_line(hours: Decimal, request: PlanRequest, node: NodePrice) -> Line:
    """Node time of pretraining and retraining."""
    schedule = f"{request.train_nodes} x {request.train_hours:f} h x {request.train_cycles} cycles, assumed"
    return node_line("train", hours, node, schedule + _repeated(request, node))


def node_line(name: str, hours: Decimal, node: NodePrice, assumes: str) -> Line:
    """Hours of a node at its price."""
    price = f"{node.eur_per_hour:f} EUR/h {_dated(node.node, node)}"
    return Line(name, "compute", hours, "node-hours", hours * node.eur_per_hour, price, assumes)


def request_line(name: str, count: Decimal, service: ServicePrice, assumes: str) -> Line:
    """Requests to the object store at their price."""
    price = f"{service.eur:f} EUR/1000 {_dated(service.service, service)}"
    return Line(name, "storage", count, "requests", count * service.eur / 1000, price, assumes)


def archive_lines(request: PlanRequest, counts: dict[str, Decimal], prices: PriceTable) -> tuple[Line, ...]:
    """Requests that bring the archive in: its upload, and ingest's reads and writes."""
    put, get = prices.service("put"), prices.service("get")
    whole = (
        "each image an object" if request.images_per_object == 1 else f"{request.images_per_object} images an object"
    )
    shards = f"shards of {request.shard_images} images, and a LIST for each {LIST_PAGE} objects"
    return (
        request_line("upload: write objects", counts["upload_puts"], put, f"{whole}, one PUT each"),
        request_line("ingest: read objects", counts["ingest_gets"], get, f"{whole}, one GET each"),
        request_line("ingest: write shards", counts["ingest_puts"], put, shards),
    )


def embed_request_lines(counts: dict[str, Decimal], prices: PriceTable) -> tuple[Line, ...]:
    """Requests of embedding: each shard is read once and its vectors are written once."""
    return (
        request_line("embed: read shards", counts["embed_gets"], prices.service("get"), "one GET a shard, read whole"),
        request_line("embed: write vectors", counts["embed_puts"], prices.service("put"), "one PUT a shard"),
    )


def kept_lines(request: PlanRequest, counts: dict[str, Decimal], prices: PriceTable) -> tuple[Line, ...]:
    """What is stored for months, and what leaves the region."""
    storage, egress = prices.service(request.storage), prices.service("egress")
    kept = {
        "store archive": ("archive_gb", f"{request.bytes_per_image} bytes an image, one copy"),
        "store shards": ("shard_gb", f"{request.shard_bytes_per_image} bytes a slice, one copy"),
        "store vectors": ("vector_gb", f"{request.dimension} float16 an image, one copy"),
    }
    leaves = f"{request.egress_share:f} of the archive and the {request.labels} images that readers label"
    lines = [
        _volume_line(name, counts[count] * request.months, storage, f"{assumes}, for {request.months:f} months")
        for name, (count, assumes) in kept.items()
    ]
    return (*lines, _volume_line("egress", counts["egress_gb"], egress, leaves))


def label_line(request: PlanRequest) -> Line:
    """Labels, each with its quality assurance."""
    each = request.label_eur + request.review_eur
    price = f"{request.label_eur:f} EUR + {request.review_eur:f} EUR review"
    assumes = "price and number as given, by default the budget plan's; every label is reviewed"
    return Line("labels", "labels", Decimal(request.labels), "labels", request.labels * each, price, assumes)


def _volume_line(name: str, volume: Decimal, service: ServicePrice, assumes: str) -> Line:
    price = f"{service.eur:f} EUR/{service.unit} {_dated(service.service, service)}"
    return Line(name, "storage", volume, service.unit + "s", volume * service.eur, price, assumes)


def _dated(name: str, row: Price) -> str:
    return f"({name}, {'assumed ' if row.assumption else ''}{row.as_of})"


def _repeated(request: PlanRequest, node: NodePrice) -> str:
    again = f"; {request.repeated_share:f} of the work is done again after kills, assumed"
    return again if node.market == "spot" and request.repeated_share else ""
