"""The section of acquisition: which images are worth a clinician's price."""

from typing import Literal

from pydantic import Field

from scanloop.sources import Positive, Section, Share


class AcquireConfig(Section):
    """Which images are worth a clinician's price."""

    policy: Literal[
        "auto", "random", "entropy", "margin", "cluster_margin", "k_center", "typiclust", "dropquery", "probcover"
    ] = Field("auto", description="auto: typical images while labels are few, then doubtful ones that differ")
    budget_eur: float = Field(30.0, ge=0)
    price_per_label_eur: Positive = Field(0.55, description="One reading with its share of quality assurance")
    max_labels: int = Field(3000, ge=0)
    candidates_per_label: int = Field(4, ge=1, description="Doubtful slices that compete for each label")
    control_share: Share = Field(0.05, description="Of the labels, drawn at random: the gain of the rest over them")
    audit: int = Field(
        0, ge=0, description="Of the labels, so many for images drawn at random, one a group: they certify promotions"
    )
    least_f1_per_eur: float = Field(
        0.0, ge=0, le=1, description="Stop where a euro surely buys less macro-F1 (0..1) than this; 0 never stops"
    )
