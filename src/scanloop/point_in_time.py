"""Labels as they were known at a time: what came later is none, and of several the last one counts."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from scanloop.errors import ConfigError

BEFORE_ANY = "1970-01-01T00:00:00Z"
"""Earlier than any label."""


def moments(times: "pd.Series[Any]") -> "pd.Series[Any]":
    """Times as they stand in tables, ISO 8601, as datetime64[us, UTC]; one without a zone is in UTC, NaT is unknown."""
    return pd.to_datetime(times, format="ISO8601", utc=True).astype("datetime64[us, UTC]")


def moment_of(text: str) -> datetime:
    """A time that was typed; without a zone it is in UTC.

    Raises:
        ConfigError: It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time; write for example 2026-03-31T12:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def known_at(labels: pd.DataFrame, until: str | None) -> pd.DataFrame:
    """The last row of each slice that is not later than a time; rows of that very time count.

    A row whose time is unknown can't be shown to be early enough, and is left out. `features.training_set` finds the
    same in a feature repository, which keeps a corrected label's earlier values too.

    Args:
        labels: With the columns `slice_id` and `as_of`, ISO 8601; one row a slice or several.
        until: The time, ISO 8601; None keeps every row.
    """
    if until is None:
        return labels
    at = moments(labels["as_of"])
    in_time = labels[at <= moments(pd.Series([until])).iloc[0]]
    order = at[in_time.index].sort_values(kind="stable").index
    last: pd.DataFrame = in_time.loc[order].drop_duplicates("slice_id", keep="last")
    return last.sort_index().reset_index(drop=True)


def newest(labels: pd.DataFrame) -> str | None:
    """`as_of` of the newest row; None where no row says a time."""
    if labels["as_of"].isna().all():
        return None
    return str(labels["as_of"].iloc[int(moments(labels["as_of"]).argmax())])
