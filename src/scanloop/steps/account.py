"""The step `account`: what a run spent on nodes and labels, against its cap."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isnan
from pathlib import Path

from scanloop.artifacts import count_rows, read_table, write_json
from scanloop.build import read_seconds, step
from scanloop.config import AccountConfig
from scanloop.errors import ConfigError
from scanloop.money.ledger import Entry, Ledger, imported_entry, label_entries, node_entry
from scanloop.money.prices import NodePrice, load_prices

logger = logging.getLogger("scanloop")


@dataclass(frozen=True)
class AccountSummary:
    """What the ledger says, without what a clock decides: seconds, the total and whether it is over the cap.

    Attributes:
        node: Row of the price table.
        eur_per_hour: Price of the node.
        artifacts: Artifacts whose node time was charged.
        slices: Slices in the catalog.
        labels: Labels bought.
        label_eur: Price of the labels, in euros.
        labels_unpriced: Labels without a row in the queue: they are not charged.
        cap_eur: Most that may be spent, in euros.
    """

    node: str
    eur_per_hour: float
    artifacts: int
    slices: int
    labels: int
    label_eur: float
    labels_unpriced: int
    cap_eur: float


@step("account")
def account(  # noqa: PLR0913  a keyword for each kind of artifact that costs node time
    config: AccountConfig,
    *,
    catalog: Path,
    validation: Path | None = None,
    encoder: Path | None = None,
    embeddings: Path | None = None,
    triage: Path | None = None,
    queue: Path | None = None,
    labels: Path | None = None,
    pseudo_labels: Path | None = None,
    baseline: Path | None = None,
    bundle: Path | None = None,
    evaluation: Path | None = None,
    promotion: Path | None = None,
    drift: Path | None = None,
    publication: Path | None = None,
    output: Path,
) -> AccountSummary:
    """Write `ledger.json`: node time of each given artifact and the labels, priced, against the cap.

    What the run imported is listed at nothing: the run that made it was charged, for bought labels, too. A run over its
    cap is reported, not refused: a refusal belongs before the spending.

    Args:
        config: Node, whose row of the price table the seconds are charged at; cap; names of imported artifacts.
        catalog: What was ingested; its slices give the price per 1,000.
        validation: Its node time is charged, as is that of each of the following.
        encoder: See validation.
        embeddings: See validation.
        triage: See validation.
        queue: Its `queue.parquet` says what each label costs.
        labels: Its rows that stand in the queue are charged at the queue's price, each reading of them.
        pseudo_labels: See validation.
        baseline: See validation.
        bundle: See validation.
        evaluation: See validation.
        promotion: See validation.
        drift: See validation.
        publication: See validation.
        output: Directory to fill.

    Raises:
        ConfigError: The price table has no such node, or an artifact is called imported and is not given.
        ArtifactError: A given artifact is not whole.
    """
    given = _given({
        "catalog": catalog, "validation": validation, "encoder": encoder, "embeddings": embeddings, "triage": triage,
        "queue": queue, "labels": labels, "pseudo_labels": pseudo_labels, "baseline": baseline, "bundle": bundle,
        "evaluation": evaluation, "promotion": promotion, "drift": drift,
        "publication": publication,
    })  # fmt: skip
    node = load_prices().of(config.node)
    prices, unpriced = _label_prices(queue, None if "labels" in config.imported else labels)
    ledger = Ledger(
        node=node,
        cap=Decimal(repr(config.cap_eur)),
        entries=_entries(given, config.imported, node),
        labels=label_entries(prices),
    )
    slices = count_rows(catalog, "manifest")
    per_1000 = ledger.per_1000(slices)
    facts = {"slices": slices, "eur_per_1000_slices": None if per_1000 is None else float(per_1000)}
    write_json(output / "ledger.json", ledger.as_json() | facts | {"labels_unpriced": unpriced})
    _warn(ledger, unpriced)
    return AccountSummary(
        node=node.node,
        eur_per_hour=float(node.eur_per_hour),
        artifacts=sum(not entry.imported for entry in ledger.entries),
        slices=slices,
        labels=ledger.label_count,
        label_eur=float(ledger.label_euros),
        labels_unpriced=unpriced,
        cap_eur=config.cap_eur,
    )


def _given(artifacts: Mapping[str, Path | None]) -> dict[str, Path]:
    return {name: path for name, path in artifacts.items() if path is not None}


def _entries(given: Mapping[str, Path], imported: Collection[str], node: NodePrice) -> tuple[Entry, ...]:
    if absent := sorted(set(imported) - set(given)):
        raise ConfigError(f"account.imported names {', '.join(absent)}; the artifacts given are {', '.join(given)}")
    return tuple(
        imported_entry(name) if name in imported else node_entry(name, read_seconds(path), node)
        for name, path in given.items()
    )


def _label_prices(queue: Path | None, labels: Path | None) -> tuple[list[float], int]:
    """Price of each label that stands in the queue, and how many do not."""
    if labels is None:
        return [], 0
    answered = read_table(labels, "labels.parquet")
    if queue is None:
        return [], len(answered)
    prices = answered["slice_id"].map(read_table(queue, "queue.parquet").set_index("slice_id")["price"])
    priced = zip(prices, answered["readers"].fillna(1), strict=True)
    paid = [float(Decimal(str(price)) * int(readers)) for price, readers in priced if not isnan(price)]
    return paid, int(prices.isna().sum())


def _warn(ledger: Ledger, unpriced: int) -> None:
    if ledger.over_cap:
        logger.warning("account: %.2f EUR spent, over the cap of %.2f EUR", ledger.total, ledger.cap)
    if unpriced:
        logger.warning("account: %d labels stand in no queue and are not charged", unpriced)
