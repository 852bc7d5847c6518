"""What a euro of labels is worth, as the last queue said when it was published."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from scanloop.labelling.schema import Wave
from scanloop.labelling.store import Store


class Forecast(BaseModel):
    """Macro-F1 that a further euro of labels is expected to bring, with its interval, and what follows from it."""

    model_config = ConfigDict(allow_inf_nan=False)

    verdict: Literal["go on", "stop"]
    why: str
    f1_per_eur: float | None = None
    low: float | None = Field(None, description="Lower bound of the 90 % interval")
    high: float | None = Field(None, description="Upper bound of it")


def last_forecast(store: Store) -> Forecast | None:
    """The forecast of the last wave's queue; None where it made none."""
    with store.reading() as session:
        said = session.scalar(select(Wave.forecast).order_by(Wave.id.desc()).limit(1))
    try:
        return None if said is None else Forecast.model_validate(said)
    except ValidationError:  # a queue of another version
        return None
