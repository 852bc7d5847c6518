"""Configuration of labels by people: where their store is, who reads twice, and how many labels may be asked for."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator

from scanloop.sources import Section, Share


class LabelConfig(Section):
    """What `scanloop label` works on and under."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a password may stand in what is refused

    store: str | None = Field(
        None, description="sqlite:///FILE or postgresql://USER@HOST/NAME; also --store and SCANLOOP_LABEL_STORE"
    )
    double_reading: Literal["none", "all", "share", "disagreement"] = Field(
        "none", description="Which images are read more than once; disagreement: where model and reader differ"
    )
    readings: int = Field(2, ge=2, le=9, description="Readings of such an image")
    share: Share = Field(0.1, description="Part of the images that share draws")
    total_limit: int | None = Field(3000, ge=0, description="Annotations that this store may ever hold; null: no limit")
    quarter_limit: int | None = Field(
        None, ge=0, description="Annotations of one calendar quarter (UTC); null: as many as the total allows"
    )

    ari_fall: Share = Field(0.1, description="A new wave is asked for when the ARI of clusters and labels fell by more")

    @field_validator("store")
    @classmethod
    def _holds_no_password(cls, address: str | None) -> str | None:
        if address is not None and urlsplit(address).password is not None:
            raise ValueError(
                "a password here would be stored with the configuration: leave it out, and set "
                "SCANLOOP_LABEL_PASSWORD, or SCANLOOP_LABEL_PASSWORD_FILE to the path of a file that holds it"
            )
        return address


class LabelErrorsConfig(Section):
    """How many of the given labels that contradict the model are proposed for reading, and at what price."""

    most: int = Field(100, ge=0, description="Images, at most")
    price_per_label_eur: float = Field(0.55, gt=0, description="Of a reading")
    budget_eur: float = Field(55.0, ge=0)
