"""What nodes, storage, requests and transfer cost: one table, checked when it is read.

Each row has its date and where it comes from.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scanloop.errors import ConfigError
from scanloop.money.dated_table import load_table

PRICES_FILE = Path(__file__).with_name("prices.yaml")
NAME = r"^[a-z0-9][a-z0-9-]*$"


class Price(BaseModel):
    """What every row says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Literal["EUR"] = Field(description="The ledger adds euros; convert before you enter a price")
    as_of: date = Field(description="Day on which the price was assumed or read")
    assumption: bool = Field(description="False only where the source is a bill or a price list that can be shown")
    source: str = Field(min_length=10, description="Where the price comes from, in words")


class NodePrice(Price):
    """One row: the price of a kind of node."""

    node: str = Field(pattern=NAME, description="Name that a run's `account.node` gives")
    eur_per_hour: Annotated[Decimal, Field(gt=0, le=1000)]
    gpu: str | None = Field(None, pattern=NAME, description="Type of its one GPU, for example t4; None: CPU only")
    market: Literal["spot", "on-demand"] = Field("spot", description="Whether the provider may take the node back")


class ServicePrice(Price):
    """One row: the price of storage, of requests or of transfer."""

    service: str = Field(pattern=NAME, description="Name that a plan gives")
    eur: Annotated[Decimal, Field(ge=0, le=1000)]
    unit: Literal["GB-month", "1000 requests", "GB"] = Field(description="What the price is for; a GB is 10^9 bytes")


class PriceTable(BaseModel):
    """Every node and service that a run can be charged for, each once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prices: tuple[NodePrice, ...] = Field(min_length=1)
    services: tuple[ServicePrice, ...] = ()

    @model_validator(mode="after")
    def _each_row_once(self) -> Self:
        names = [row.node for row in self.prices] + [row.service for row in self.services]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return self

    @property
    def rows(self) -> Mapping[str, NodePrice]:
        """Rows by node."""
        return {row.node: row for row in self.prices}

    def of(self, node: str) -> NodePrice:
        """Price of a node.

        Raises:
            ConfigError: The table has no such node; the message lists those that it has.
        """
        if node not in self.rows:
            raise ConfigError(f"account.node: no price for {node!r}; the table has {', '.join(sorted(self.rows))}")
        return self.rows[node]

    def of_gpu(self, gpu: str, market: str) -> NodePrice:
        """Price of the node with one GPU of a type, on a market.

        Raises:
            ConfigError: The table has no such row; the message lists the GPUs that it has.
        """
        for row in self.prices:
            if (row.gpu, row.market) == (gpu, market):
                return row
        known = ", ".join(sorted(f"{row.gpu} ({row.market})" for row in self.prices if row.gpu))
        raise ConfigError(f"no price for a {market} node with the GPU {gpu!r}; the table has {known}")

    def service(self, name: str) -> ServicePrice:
        """Price of storage, requests or transfer.

        Raises:
            ConfigError: The table has no such service; the message lists those that it has.
        """
        for row in self.services:
            if row.service == name:
                return row
        known = ", ".join(sorted(row.service for row in self.services)) or "none"
        raise ConfigError(f"no price for the service {name!r}; the table has {known}")


def load_prices(path: Path = PRICES_FILE) -> PriceTable:
    """Price table in a YAML file; the one that comes with scanloop by default.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds faults; the message lists all of them.
    """
    return load_table(path, PriceTable)
