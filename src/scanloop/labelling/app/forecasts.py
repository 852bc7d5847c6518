"""What a euro of labels is worth, as a file says that something else writes."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

FILE, LONGEST_BYTES = "forecast.json", 100_000


class Forecast(BaseModel):
    """Macro-F1 that a further euro of labels is expected to bring, with its interval, and what follows from it."""

    model_config = ConfigDict(allow_inf_nan=False)

    per_euro: float
    low: float
    high: float
    verdict: Literal["go on", "stop"]
    why: str


def read_forecast(folder: Path | None) -> Forecast | None:
    """The forecast in a folder; None where there is none, or none that can be read."""
    if folder is None:
        return None
    try:
        with (folder / FILE).open("rb") as file:
            return Forecast.model_validate(json.loads(file.read(LONGEST_BYTES)))
    except (OSError, ValueError, ValidationError):
        return None
