"""What a plan is asked: an archive, the nodes that work on it, its labels, and what may be spent."""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Bucket = Literal["compute", "storage", "labels"]
Share = Annotated[Decimal, Field(ge=0, le=1)]
Euros = Annotated[Decimal, Field(ge=0, le=1_000_000_000)]


SHARD_BYTES = 35_000
"""Measured: 1,410 brain slices, shrunk from 512 to 256 pixels and stored without loss, take 35,022 bytes each."""


class PlanRequest(BaseModel):
    """Everything that a plan needs to know; each default is an assumption that its line in the plan repeats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(ge=1, le=10_000_000_000)
    bytes_per_image: int = Field(ge=1, le=1_000_000_000, description="Mean size of an image as it comes in")

    gpu: str | None = Field(None, description="Type of GPU of the nodes that embed")
    node: str | None = Field(None, description="Row of the price table, in place of a GPU and a market")
    market: Literal["spot", "on-demand"] = "spot"
    encoder: str = "resnet18"
    precision: Literal["fp32", "bf16", "fp16", "int8"] | None = None
    images_per_second: Annotated[Decimal, Field(gt=0, le=10_000_000)] | None = Field(
        None, description="Measured: images a second that one of the nodes embeds, reading and decoding included"
    )
    nodes: int = Field(1, ge=1, le=10_000, description="Nodes that embed side by side")
    ingest_node: str = Field("cpu-2core", description="Row of the price table for ingest")
    repeated_share: Share = Field(Decimal("0.10"), description="Work of spot nodes that is done again after kills")

    images_per_object: int = Field(1, ge=1, description="Images in one object of the archive: 1 where each is a file")
    shard_images: int = Field(512, ge=1, description="Images a shard")
    shard_bytes_per_image: int = Field(SHARD_BYTES, ge=1, description="Mean size of a slice in a shard")
    dimension: int = Field(512, ge=1, le=100_000, description="Length of an embedding, float16")
    months: Annotated[Decimal, Field(ge=0, le=1200)] = Decimal(12)
    storage: str = Field("storage-standard", description="Service of the price table")
    egress_share: Share = Field(Decimal(0), description="Share of the archive that leaves the provider's region")

    train_hours: Annotated[Decimal, Field(ge=0, le=1_000_000)] = Field(Decimal(30), description="Of a node, a cycle")
    train_cycles: int = Field(2, ge=0, le=10_000)
    train_nodes: int = Field(1, ge=1, le=10_000)
    train_node: str | None = Field(None, description="Row of the price table; None: a T4 on the same market")

    labels: int = Field(3000, ge=0, le=1_000_000_000)
    label_eur: Euros = Decimal("0.50")
    review_eur: Euros = Field(Decimal("0.05"), description="Quality assurance of a label, on top of its price")

    reserve_share: Share = Field(Decimal("0.10"), description="Kept back, as a share of everything else")
    cap_eur: Annotated[Decimal, Field(gt=0, le=1_000_000_000)] = Decimal(5000)
    buckets: dict[Bucket, Euros] = Field(default_factory=dict, description="Most that each kind of spending may take")
    goal_eur: Euros = Field(Decimal("0.10"), description="Goal for embedding on spot CPU nodes, requests included")

    @model_validator(mode="after")
    def _one_device(self) -> Self:
        if (self.gpu is None) == (self.node is None):
            raise ValueError("give a GPU or a node of the price table, one of them")
        return self

    @property
    def train_node_hours(self) -> Decimal:
        """Node-hours of training: nodes times hours times cycles."""
        return self.train_nodes * self.train_hours * self.train_cycles
