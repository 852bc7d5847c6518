"""How a model is judged and how that is told: the sections of `evaluate`, of `validate_external` and of `report`."""

from typing import Literal

from pydantic import Field

from scanloop.sections.promotion import OperatingPointsConfig
from scanloop.sources import Section


class RobustnessConfig(Section):
    """How the model bears altered images."""

    slices: int = Field(256, ge=0, le=20_000, description="Images that are altered, drawn by seed; 0 leaves it out")


class SubgroupsConfig(Section):
    """Which parts of the hold-out are measured by themselves."""

    min_groups: int = Field(10, ge=2, description="Parts of fewer independent groups are counted, not shown")


class MapConfig(Section):
    """The plane on which images that the network finds alike lie close together."""

    slices: int = Field(500, ge=0, le=5000, description="Images on the map, labelled ones first; 0 leaves it out")
    method: Literal["tsne", "umap"] = Field("tsne", description="umap needs the extra of this name")


class LearningCurveConfig(Section):
    """How the head on frozen features gains from labels."""

    draws: int = Field(5, ge=0, le=50, description="Orders in which groups are added; 0 leaves it out")
    slices: int = Field(1000, ge=10, description="Labelled images at most; more are drawn by seed")


class EvaluateConfig(Section):
    """How the intervals are computed, and what is looked at beside the metrics."""

    resamples: int = Field(1000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bins: int = Field(10, ge=2, description="Bins of ECE and of the reliability diagram")
    operating_points: OperatingPointsConfig = OperatingPointsConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    subgroups: SubgroupsConfig = SubgroupsConfig()
    map: MapConfig = MapConfig()
    learning_curve: LearningCurveConfig = LearningCurveConfig()


class ExternalConfig(Section):
    """How a bundle is judged on a foreign set."""

    resamples: int = Field(1000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bins: int = Field(10, ge=2, description="Bins of ECE")
    threshold: float = Field(0.5, gt=0, lt=1, description="Of the positive class's probability; two classes only")
    split: Literal["all", "train", "validation", "test"] = Field("all", description="Split of the set that judges")
    classes: dict[str, str] = Field({}, description="Class of the bundle for each class of the set, where names differ")


class ReportConfig(Section):
    """What the report shows."""

    title: str = "scanloop"
    gallery: int = Field(12, ge=0, le=100, description="Queued images shown")
    errors: int = Field(8, ge=0, le=100, description="Misclassified images shown of each kind, the surest first")
    intended_use: str = Field(
        "Sorting images of the archive on which it was trained, for its readers and engineers.",
        min_length=1,
        description="What the cards say that model and data are for",
    )
    licence: str = Field("not stated", min_length=1, description="Licence of the data, as its publisher gives it")
