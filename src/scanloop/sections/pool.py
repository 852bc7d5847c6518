"""The section of pseudo-labels: what the pool may teach, and when a machine's label counts as one."""

from typing import Literal

from pydantic import Field

from scanloop.sources import Section, Share


class CrossValidation(Section):
    """Repeated stratified group cross-validation."""

    folds: int = Field(5, ge=2, le=50)
    repeats: int = Field(4, ge=1, le=100)


class PseudoLabelConfig(Section):
    """What is learnt from the pool: soft labels by a method, and promoted labels by a rule with a certificate."""

    method: Literal["auto", "supervised", "mixture", "consensus", "spreading", "agreement", "self_training"] = Field(
        "auto", description="How the pool teaches; auto: by out-of-fold evidence; supervised: not at all"
    )
    max_pool_slices: int = Field(2000, ge=1, description="Pool images that are learnt from at most, drawn by seed")
    min_confidence: Share = Field(0.8, description="Rule: least calibrated confidence")
    neighbours: int = Field(11, ge=1, description="Rule: nearest labelled images, whose majority must agree")
    min_neighbour_share: Share = Field(0.5, description="Rule: the neighbours' majority must exceed this share")
    max_anomaly: Share = Field(0.99, description="Rule: no farther from the labels than this share of them is")
    precision: float = Field(0.95, gt=0.5, lt=1, description="Certificate: least share of right promoted labels")
    delta: float = Field(0.05, gt=0, lt=0.5, description="Certificate: chance that it is false, at most")
    uncertified: bool = Field(False, description="For studies: promote by the rule alone, and say so everywhere")
    min_f1: Share = Field(0.88, description="Gate: least lower bound of macro-F1 on the hold-out")
    margin: Share = Field(0.02, description="Gate: largest loss of macro-F1 against supervised, at the lower bound")
    weight: Share = Field(0.5, description="Weight of a promoted label's loss against a given label's")
    wave: int = Field(1, ge=1, description="Number that the promoted labels carry, to be taken back by")
    cross_validation: CrossValidation = CrossValidation()
