"""Configuration of what a bundle says beside probabilities: a part of the section `retrain`."""

from typing import Self

from pydantic import Field, model_validator

from scanloop.sections.promotion import RatesConfig
from scanloop.sources import Positive, Section

ARGMAX = "argmax"
"""Name of the operating point that calls the most probable class; every bundle has it."""


class AbstentionConfig(Section):
    """When the model leaves an image to a reader."""

    strange_share: float = Field(
        0.05, gt=0, le=0.5, description="Further images of the archive's kind that may be called strange, at most"
    )
    familiar_groups: int = Field(
        2000, ge=2, le=20_000, description="Groups, one image each, that strangeness is measured and calibrated on"
    )
    least_confidence: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Abstain where the most probable class has less; null: where the conformal set holds another class",
    )


class ServedPointsConfig(RatesConfig):
    """Thresholds of the positive class that the bundle holds beside argmax; two classes only."""

    default: str = Field(ARGMAX, description="The one that labels where none is asked for: argmax, 'tpr 0.95', ...")

    @property
    def names(self) -> tuple[str, ...]:
        """What the points are called."""
        return (ARGMAX, *(f"tpr {rate:g}" for rate in self.target_tpr), *(f"fpr {rate:g}" for rate in self.target_fpr))

    @model_validator(mode="after")
    def _default_is_a_point(self) -> Self:
        if self.default not in self.names:
            raise ValueError(f"the default {self.default!r} is none of the points: {', '.join(self.names)}")
        return self


class GatesConfig(Section):
    """How far a probability may be from the training's, by the precision of the engine that serves."""

    float32: Positive = 1e-5
    bf16: Positive = 0.02
    int8: Positive = 0.05


class ServingSection(Section):
    """What is served with the probabilities."""

    abstention: AbstentionConfig = AbstentionConfig()
    operating_points: ServedPointsConfig = ServedPointsConfig()
    gates: GatesConfig = GatesConfig()
    exemplars: int = Field(2000, ge=1, le=20_000, description="Labelled images that answers can point to, at most")
