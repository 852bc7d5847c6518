"""A run's configuration: one section a step, each value with its type, its range and its default."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from scanloop.sections.acquisition import AcquireConfig as AcquireConfig  # noqa: PLC0414
from scanloop.sections.evaluation import EvaluateConfig as EvaluateConfig  # noqa: PLC0414  handed on: a section as any other
from scanloop.sections.evaluation import ExternalConfig as ExternalConfig  # noqa: PLC0414
from scanloop.sections.evaluation import ReportConfig as ReportConfig  # noqa: PLC0414
from scanloop.sections.honesty import HonestySection
from scanloop.sections.labelling import LabelConfig as LabelConfig  # noqa: PLC0414
from scanloop.sections.pool import CrossValidation as CrossValidation  # noqa: PLC0414
from scanloop.sections.pool import PseudoLabelConfig as PseudoLabelConfig  # noqa: PLC0414
from scanloop.sections.pretraining import EncoderConfig as EncoderConfig  # noqa: PLC0414  # part of this module
from scanloop.sections.pretraining import PretrainConfig as PretrainConfig  # noqa: PLC0414  # part of this module
from scanloop.sections.promotion import PromoteConfig as PromoteConfig  # noqa: PLC0414 - handed on aloud: mypy asks for it
from scanloop.sections.serving import ServingSection
from scanloop.sources import (
    DicomSource,
    FolderSource,
    MedmnistSource,
    NpzSource,
    Positive,
    Section,
    Share,
    SyntheticSource,
    TableSource,
)


class IngestConfig(Section):
    """What comes in, and how it is split."""

    source: Annotated[
        FolderSource | TableSource | NpzSource | MedmnistSource | DicomSource | SyntheticSource,
        Field(discriminator="kind"),
    ]
    base: str | None = Field(None, description="Catalog of an earlier ingest of this archive; only news are read")
    positive_class: str | None = Field(None, description="Whose probability the tables list; the last class by default")
    short_side_px: int = Field(256, ge=16, le=1024, description="Images are shrunk to this, never enlarged")
    min_side_px: int = Field(8, ge=1, description="Smaller images are quarantined")
    max_pixels: int = Field(50_000_000, ge=1, description="Larger images are quarantined before they are decoded")
    shard_slices: int = Field(512, ge=1, description="Images a shard")
    near_duplicate_bits: int = Field(8, ge=0, le=16, description="Most differing bits of two 64-bit perceptual hashes")
    near_duplicate_correlation: Share = Field(0.97, description="Least correlation of two 32x32 thumbnails")
    validation_share: Share = 0.0
    test_share: Share = Field(0.0, description="0 leaves the hold-out to repeated group cross-validation")


class ValidateConfig(Section):
    """What the catalog must satisfy before money is spent on it."""

    min_labelled_per_class: int = Field(5, ge=1)
    max_quarantined_share: Share = 0.2
    min_slices: int = Field(20, ge=1)


class EmbedConfig(Section):
    """How slices become vectors."""

    arrangement: ClassVar[frozenset[str]] = frozenset({"parts", "store"})

    batch_size: int = Field(64, ge=1, le=4096)
    precision: Literal["float32", "bf16", "fp16", "int8"] = Field(
        "float32", description="Inside the network; on a CPU bf16 and int8 are compiled, several times faster"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU, where there is one; int8: no")
    compiles: bool = Field(False, description="Have torch compile what it runs: a minute at the start, on a GPU")
    calibration_slices: int = Field(128, ge=1, le=10_000, description="Slices, drawn by seed, that int8 is scaled by")
    fidelity_slices: int = Field(64, ge=2, le=10_000, description="Slices, drawn by seed, compared with float32")
    min_cosine: Share = Field(0.99, description="Least cosine of these slices' vectors to those of float32")
    fall_back: bool = Field(False, description="Below it take the next slower precision instead of refusing")
    parts: int = Field(1, ge=1, le=1000, description="Tasks that embed at once, a range of shards each")
    store: str | None = Field(
        None, description="Folder that all parts see, for vectors by content; the run's by default"
    )


class TriageConfig(Section):
    """How the embeddings are projected and clustered, and what in them is looked for before anybody learns."""

    variance: Share = Field(0.9, description="Share of variance that the principal components keep")
    method: Literal["kmeans", "dbscan"] = Field("kmeans", description="dbscan finds the number of clusters, and noise")
    min_samples: int = Field(10, ge=2, le=256, description="dbscan: slices within its distance that make one a core")
    graph_neighbours: int = Field(32, ge=2, le=1024, description="dbscan: neighbours of each slice in its graph")
    near_rate: Share = Field(0.01, description="Unrelated pool images that near-duplicates may take along, at most")
    largest_group_share: Share = Field(0.05, description="A group of more of the archive is warned of")
    exact_search_slices: int = Field(50_000, ge=1, description="The search index of more slices is approximate")
    k_min: int = Field(2, ge=2)
    k_max: int = Field(6, ge=2)
    silhouette_sample: int = Field(5000, ge=50, description="Most rows behind the silhouette on plain distances")

    @model_validator(mode="after")
    def _some_k(self) -> Self:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        if self.graph_neighbours < self.min_samples:
            raise ValueError(f"graph_neighbours {self.graph_neighbours} is below min_samples {self.min_samples}")
        return self


class OracleConfig(Section):
    """How a queue is answered from hidden labels."""

    as_of: str = Field("2026-01-01T00:00:00Z", description="Time stamped on the answers", pattern=r"^\d{4}-\d\d-\d\dT")


class RetrainConfig(HonestySection, ServingSection):
    """Two stages: a head on frozen features, then the last two blocks with discriminative learning rates."""

    finetune_epochs: int = Field(3, ge=0, le=100, description="0 keeps the features frozen")
    learning_rate: Positive = Field(1e-4, description="Of the last block; the block before takes it times the decay")
    layer_decay: Share = 0.3
    head_learning_rate: Positive = 1e-3
    weight_decay: float = Field(1e-4, ge=0)
    batch_size: int = Field(32, ge=2)
    class_weights: bool = Field(False, description="Fine-tuning weighs classes by their inverse frequency")
    focus: float = Field(0.0, ge=0, le=5, description="Fine-tuning: gamma of the focal loss; 0 is cross-entropy")
    mixup: float = Field(0.0, ge=0, le=2, description="Fine-tuning: alpha of MixUp of feature maps; 0 mixes none")
    cross_validation: CrossValidation = CrossValidation()


class DetectDriftConfig(Section):
    """When the confidence has drifted."""

    method: Literal["psi", "ks", "wasserstein", "jensenshannon"] = "psi"
    threshold: Positive | None = Field(None, description="Drift from here on (ks: p-value); None: the method's own")
    samples: str | None = Field(None, description="Folder of samples of what was served; compared in place of the pool")


class AccountConfig(Section):
    """What the run's nodes and labels cost."""

    node: str = Field("cpu-2core", description="Row of the price table")
    cap_eur: Positive = 5000.0
    imported: tuple[str, ...] = Field((), description="Artifacts that an earlier run paid; a pipeline names its own")


class StorageConfig(Section):
    """What `scanloop storage apply` makes of a bucket; null leaves a rule out."""

    versioning: bool = Field(True, description="Keep what is overwritten or deleted")
    block_public_access: bool = Field(True, description="Refuse what would make objects public")
    block_public_acls: bool = Field(True, description="False where a server refuses every write otherwise, as Ceph 16")
    encryption: Literal["AES256", "aws:kms"] | None = Field("AES256", description="Default encryption at rest")
    raw_prefix: str = Field("raw/", min_length=1, description="Where the archive lies as it came in")
    raw_after_days: int | None = Field(30, ge=1, description="Age at which raw objects move to a cheaper class")
    raw_class: str = Field("STANDARD_IA", min_length=1, description="That class")
    abort_multipart_days: int | None = Field(7, ge=1, description="Uploads begun and not ended are given up")
    expire_noncurrent_days: int | None = Field(90, ge=1, description="Overwritten or deleted versions go")
    scratch_prefix: str = Field("scratch/", min_length=1)
    expire_scratch_days: int | None = Field(14, ge=1, description="Objects below the scratch prefix go")


class RunConfig(Section):
    """One run: a section a step."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    name: str = Field("run", pattern=r"^[a-zA-Z0-9_-]+$")
    ingest: IngestConfig
    validation: ValidateConfig = Field(ValidateConfig(), alias="validate")
    pretrain: PretrainConfig = PretrainConfig()
    embed: EmbedConfig = EmbedConfig()
    triage: TriageConfig = TriageConfig()
    acquire: AcquireConfig = AcquireConfig()
    oracle: OracleConfig = OracleConfig()
    pseudo_label: PseudoLabelConfig = PseudoLabelConfig()
    retrain: RetrainConfig = RetrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    detect_drift: DetectDriftConfig = DetectDriftConfig()
    account: AccountConfig = AccountConfig()
    report: ReportConfig = ReportConfig()
    storage: StorageConfig = StorageConfig()
    label: LabelConfig = LabelConfig()

    def section(self, step: str) -> Section:
        """Section of the step with this name, for example "triage"."""
        section: Section = getattr(self, "validation" if step == "validate" else step)
        return section


STEPS = tuple(
    field.alias or name
    for name, field in RunConfig.model_fields.items()
    if name not in {"seed", "name", "storage", "label"}
)
