"""Configuration of what is held against what: when a challenger becomes champion, and at which threshold it works."""

from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from scanloop.sources import Section, Share


class RatesConfig(Section):
    """Rates that thresholds of the positive class aim at."""

    target_tpr: tuple[Share, ...] = Field((0.95,), description="Shares of the positive class to be found, at least")
    target_fpr: tuple[Share, ...] = Field((0.05,), description="Shares of the others to be called positive, at most")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if any(target <= 0 for target in self.target_tpr) or any(target >= 1 for target in self.target_fpr):
            raise ValueError("a TPR of 0 and an FPR of 1 need no threshold: give targets between the two")
        return self


class OperatingPointsConfig(RatesConfig):
    """Which thresholds are chosen, on images that do not judge them."""

    prevalence: float | None = Field(
        None, gt=0, lt=1, description="Share of the positive class where the model will work, for PPV and NPV there"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1)


class PromoteConfig(Section):
    """When a challenger becomes champion."""

    arrangement: ClassVar[frozenset[str]] = frozenset({"wandb_project"})
    model_config = ConfigDict(hide_input_in_errors=True)  # a password may stand in what is refused

    min_f1: Share = Field(0.88, description="Least lower bound of macro-F1")
    margin: Share = Field(0.02, description="Largest loss against any champion so far, at the bound of the difference")
    min_groups: int = Field(100, ge=2, description="Fewer hold-out groups are refused")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of all looks at a hold-out together, two-sided")
    max_looks: int = Field(10, ge=1, le=1000, description="Models that one hold-out may judge, whatever their name")
    model_name: str = Field("scanloop", min_length=1)
    tracking_uri: str | None = Field(None, description="MLflow; an SQLite file beside the artifacts when not given")
    wandb_project: str | None = Field(
        None,
        pattern=r"^[^/\\#?%:\s]{1,128}$",
        description="Weights & Biases: a project that new decisions are sent to beside MLflow; needs the extra wandb",
    )

    @field_validator("tracking_uri")
    @classmethod
    def _holds_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).netloc and "@" in uri:
            raise ValueError(
                "a user or password here would be stored with every artifact: leave it out, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment of the steps"
            )
        return uri
