"""How many images a second a device gets through: one dated table, which says of each figure how it is known."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scanloop.errors import ConfigError
from scanloop.money.dated_table import load_table

THROUGHPUT_FILE = Path(__file__).with_name("throughput.yaml")
SECONDS_PER_HOUR = 3600

Basis = Literal["measured", "published", "assumption", "given"]
Stage = Literal["ingest", "prepare", "forward", "embed"]


class Rate(BaseModel):
    """One row: images a second that one node gets through in one stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Stage = Field(
        description="ingest: the whole step; prepare: reading, decoding and resizing slices on the node's cores; "
        "forward: the encoder alone; embed: prepare and forward together"
    )
    device: str = Field(min_length=2, description="Node of the price table, or type of GPU")
    encoder: str | None = Field(None, description="None where the stage has no encoder")
    precision: Literal["fp32", "bf16", "fp16", "int8"] | None = None
    images_per_second: Annotated[Decimal, Field(gt=0, le=10_000_000)]
    basis: Basis
    n: int = Field(ge=0, description="Measurements behind the figure; 0 for an assumption")
    as_of: date | None = Field(None, description="Day of the figure; a rate that a request gives has none")
    source: str = Field(min_length=10, description="Command and material, publication, or why it is assumed")

    @model_validator(mode="after")
    def _measured_by_someone(self) -> Self:
        if (self.n == 0) != (self.basis in ("assumption", "given")):
            raise ValueError("n is 0 for an assumption, and at least 1 for what was measured or published")
        if self.as_of is None and self.basis != "given":
            raise ValueError("as_of is missing: a figure in a table has a date")
        return self

    def seconds(self, images: int) -> Decimal:
        """Seconds of one node for so many images, to 28 digits."""
        return Decimal(images) / self.images_per_second

    @property
    def told(self) -> str:
        """The figure and how it is known, in one phrase."""
        encoder = " ".join(part for part in (self.encoder, self.precision) if part)
        what = f"{self.stage}{f' of {encoder}' if encoder else ''} on {self.device}"
        known = (self.basis, f"n={self.n}" if self.n else "", str(self.as_of) if self.as_of else "")
        return f"{what}: {self.images_per_second:f} images/s ({', '.join(filter(None, known))}: {self.source})"


class ThroughputTable(BaseModel):
    """Rates, each stage of a device once per encoder and precision; the first row of an encoder is its usual one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rates: tuple[Rate, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        keys = [(row.stage, row.device, row.encoder, row.precision) for row in self.rates]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return self

    def of(self, stage: Stage, device: str, encoder: str | None = None, precision: str | None = None) -> Rate | None:
        """Rate of a stage, of the encoder's first row where no precision is asked for; None where there is none."""
        for row in self.rates:
            if (row.stage, row.device, row.encoder) == (stage, device, encoder) and precision in (None, row.precision):
                return row
        return None

    def embedding(self, device: str, host: str, encoder: str, precision: str | None) -> tuple[Rate, ...]:
        """Rates whose seconds add up to those of embedding: of the whole, or of preparing and then the encoder.

        Args:
            device: Node of the price table, or type of GPU.
            host: Node whose cores prepare the slices where the device is a GPU.
            encoder: Name of the encoder.
            precision: fp32, bf16, fp16 or int8; None takes the encoder's first row.

        Raises:
            ConfigError: No row tells it; the message lists what is known.
        """
        if whole := self.of("embed", device, encoder, precision):
            return (whole,)
        forward, prepare = self.of("forward", device, encoder, precision), self.of("prepare", host)
        if forward and prepare:
            return (prepare, forward)
        known = (f"{row.encoder} {row.precision} on {row.device}" for row in self.rates if row.encoder)
        asked = f"{encoder}{f' {precision}' if precision else ''} on {device}"
        raise ConfigError(
            f"no throughput for {asked}: give --images-per-second, or take one of {', '.join(sorted(known))}"
        )


def load_throughput(path: Path = THROUGHPUT_FILE) -> ThroughputTable:
    """Throughput table in a YAML file; the one that comes with scanloop by default.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds faults; the message lists all of them.
    """
    return load_table(path, ThroughputTable)
