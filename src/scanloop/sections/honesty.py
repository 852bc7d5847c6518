"""Configuration of what makes a model's probabilities honest: a part of the section `retrain`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from scanloop.sources import Section, Share


class HonestySection(Section):
    """How probabilities are calibrated, for which shares of the classes, and what sets of classes promise."""

    calibration: Literal["auto", "none", "temperature", "affine", "beta", "isotonic"] = Field(
        "auto", description="Map from logits to probabilities; auto: the simplest that out-of-fold log-loss supports"
    )
    target_prior: Literal["labelled", "pool", "given"] = Field(
        "labelled",
        description="Shares of the classes that probabilities are served for: those of the random labels, those "
        "estimated in the pool, or given_prior. The last two assume that each class looks the same there",
    )
    given_prior: dict[str, Share] = Field({}, description="Share of each class, where target_prior is 'given'")
    conformal_alpha: float = Field(0.1, gt=0, lt=0.5, description="Share of sets of classes that may miss the true one")
    conformal_per_class: bool = Field(True, description="Keep that promise class by class, not on average alone")
    prior_slices: int = Field(20_000, ge=10, description="Pool images, drawn by seed, in which shares are estimated")

    @model_validator(mode="after")
    def _shares_are_a_prior(self) -> Self:
        if (self.target_prior == "given") != bool(self.given_prior):
            raise ValueError("given_prior and target_prior 'given' need each other")
        shares = self.given_prior.values()
        if shares and (abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0):
            raise ValueError("given_prior: the shares of the classes must be above 0 and sum to 1")
        return self
