"""One small run of the learning half, made by the steps themselves: what the tests of single steps start from."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanloop.config import (
    AcquireConfig,
    CrossValidation,
    EmbedConfig,
    EvaluateConfig,
    IngestConfig,
    OracleConfig,
    PretrainConfig,
    PromoteConfig,
    PseudoLabelConfig,
    RetrainConfig,
    Section,
    SyntheticSource,
    TriageConfig,
)

PLAN = CrossValidation(seed=3, folds=3, repeats=2)
SOURCE = SyntheticSource(seed=3, slices=120, size_px=32, labelled=40, contrast=1.0, copy_share=0.05)
LENIENT = PseudoLabelConfig(
    seed=3, method="mixture", uncertified=True, min_confidence=0.5, neighbours=5, min_f1=0.0, margin=1.0,
    cross_validation=PLAN,
)  # fmt: skip

_LEARNT = ("catalog", "encoder", "embeddings", "triage", "labels")

PLANS: Mapping[str, tuple[str, Section, tuple[str, ...]]] = {
    "catalog": (
        "ingest",
        IngestConfig(seed=3, source=SOURCE, positive_class="lesion", short_side_px=32, shard_slices=50, test_share=0.2),
        (),
    ),
    "encoder": ("pretrain", PretrainConfig(seed=3, input_px=32, epochs=1, batch_size=32), ("catalog",)),
    "embeddings": ("embed", EmbedConfig(), ("catalog", "encoder")),
    "triage": ("triage", TriageConfig(seed=3, k_max=3), ("catalog", "embeddings")),
    "queue": (
        "acquire",
        AcquireConfig(seed=3, budget_eur=5.0, price_per_label_eur=0.55, candidates_per_label=4),
        ("catalog", "embeddings", "triage"),
    ),
    "labels": ("oracle", OracleConfig(), ("catalog", "queue")),
    "pseudo_labels": ("pseudo_label", LENIENT, ("catalog", "embeddings", "triage", "labels")),
    "baseline": ("retrain", RetrainConfig(seed=3, finetune_epochs=1, cross_validation=PLAN), _LEARNT),
    "bundle": ("retrain", RetrainConfig(seed=3, finetune_epochs=1, cross_validation=PLAN), (*_LEARNT, "pseudo_labels")),
    "evaluation": (
        "evaluate",
        EvaluateConfig(seed=3, resamples=100),
        ("catalog", "labels", "pseudo_labels", "bundle", "baseline"),
    ),
    "promotion": ("promote", PromoteConfig(seed=3), ("catalog", "bundle", "evaluation")),
}
"""Step, configuration and inputs of each artifact. The gate lets every pseudo-label of the rule through."""


@dataclass(frozen=True)
class Chain:
    """The run; an artifact is made, with all that it stands on, when a test first asks for it."""

    folder: Path
    summaries: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        """Directory of an artifact."""
        if name not in self.summaries:
            step, config, inputs = PLANS[name]
            paths = self.inputs(*inputs)
            self.summaries[name] = step_named(step)(config, **paths, output=self.folder / name)
        return self.folder / name

    def summary(self, name: str) -> Any:
        """What the step said of its artifact."""
        return self.summaries[self[name].name]

    def inputs(self, *names: str) -> dict[str, Path]:
        """Artifacts as a step takes them."""
        return {name: self[name] for name in names}


def step_named(name: str) -> Any:
    """The step of this name; it is imported when it is needed."""
    return getattr(importlib.import_module(f"scanloop.steps.{name}"), name)
