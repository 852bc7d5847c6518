"""How many annotations a store may hold: in all, and of one calendar quarter."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scanloop.errors import BudgetError
from scanloop.labelling.schema import Lease, Reading
from scanloop.labelling.settling import standing


@dataclass(frozen=True)
class Limits:
    """Most readings that stand, each of which is paid; None is no limit.

    Attributes:
        total: Of all times.
        quarter: Of one calendar quarter, in UTC.
    """

    total: int | None = None
    quarter: int | None = None


@dataclass(frozen=True)
class Used:
    """Readings that stand, and those that are in readers' hands: of all times, and of this quarter."""

    total: int
    quarter: int


def quarter_start(at: datetime) -> datetime:
    """First instant of a time's calendar quarter, in UTC.

    >>> quarter_start(datetime(2026, 5, 31, tzinfo=UTC)).isoformat()
    '2026-04-01T00:00:00+00:00'
    """
    at = at.astimezone(UTC)
    return datetime(at.year, (at.month - 1) // 3 * 3 + 1, 1, tzinfo=UTC)


def used(session: Session, at: datetime) -> Used:
    """Annotations that count against the limits at a time."""
    held = session.scalar(select(func.count()).select_from(Lease)) or 0

    def count(query: Any) -> int:
        return (session.scalar(select(func.count()).select_from(query.subquery())) or 0) + held

    return Used(count(standing()), count(standing().where(Reading.at >= quarter_start(at))))


def allowed(session: Session, limits: Limits, at: datetime) -> int | None:
    """Annotations that may still be asked for; None where there is no limit.

    Raises:
        BudgetError: None; the message says which limit is reached, and what to do.
    """
    spent = used(session, at)
    left = []
    for limit, count, what, remedy in (
        (limits.total, spent.total, "in all", "raise label.total_limit"),
        (limits.quarter, spent.quarter, f"of the quarter from {quarter_start(at):%Y-%m-%d}", "wait for the next one"),
    ):
        if limit is None:
            continue
        if count >= limit:
            raise BudgetError(
                f"the limit of {limit} annotations {what} is reached: {count} are given or in readers' hands; {remedy}"
            )
        left.append(limit - count)
    return min(left, default=None)
