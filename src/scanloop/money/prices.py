"""What an hour of a node costs: one table, checked when it is read, each row with its date and where it comes from."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scanloop.errors import ConfigError
from scanloop.faults import listed

PRICES_FILE = Path(__file__).with_name("prices.yaml")


class NodePrice(BaseModel):
    """One row: the price of a kind of node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name that a run's `account.node` gives")
    eur_per_hour: Annotated[Decimal, Field(gt=0, le=1000)]
    currency: Literal["EUR"] = Field(description="The ledger adds euros; convert before you enter a price")
    as_of: date = Field(description="Day on which the price was assumed or read")
    assumption: bool = Field(description="False only where the source is a bill or a price list that can be shown")
    source: str = Field(min_length=10, description="Where the price comes from, in words")


class PriceTable(BaseModel):
    """Every node that a run can be charged for, each once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prices: tuple[NodePrice, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_node_once(self) -> Self:
        names = [row.node for row in self.prices]
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


def load_prices(path: Path = PRICES_FILE) -> PriceTable:
    """Price table in a YAML file; the one that comes with scanloop by default.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds faults; the message lists all of them.
    """
    try:
        return PriceTable.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(listed(path, error)) from error
