"""Tables of the label store. Money is whole cents, times are UTC, and what was read is never changed or deleted."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

APPEND_ONLY = ("readings", "adjudications", "exports", "events")
"""Tables whose rows the database itself refuses to change or delete."""


class UtcTime(TypeDecorator[datetime]):
    """A time of day that knows it is UTC; databases without time zones hold it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Hand a time to the database; one without a zone is a fault of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} says no time zone; give a time in UTC")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  its signature
        """Time of the database, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What every table shares: how Python's types stand in the database."""

    type_annotation_map: ClassVar = {
        str: Text(),
        datetime: UtcTime(),
        int: Integer(),
        dict[str, Any]: JSON(),
        dict[str, Any] | None: JSON(none_as_null=True),
        list[str]: JSON(),
        list[float] | None: JSON(none_as_null=True),
        list[list[str]] | None: JSON(none_as_null=True),
    }


class Reader(Base):
    """Who reads. A role includes those before it: reader, adjudicator, curator."""

    __tablename__ = "readers"
    __table_args__ = (CheckConstraint("role IN ('reader', 'adjudicator', 'curator')", name="readers_role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    added_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class Password(Base):
    """A reader's password, as Argon2id's hash of it alone."""

    __tablename__ = "passwords"

    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"), primary_key=True, autoincrement=False)
    hash: Mapped[str]
    set_at: Mapped[datetime]


class PageSession(Base):
    """Somebody who is logged in on the page. `digest` is SHA-256 of what the browser holds, which is stored nowhere."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(primary_key=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"), index=True)
    began_at: Mapped[datetime] = mapped_column(index=True)
    seen_at: Mapped[datetime]


class Wave(Base):
    """A published queue. What is paid and what is handed out stand together in `committed_cents`, never over budget.

    `forecast` is what the queue says that the next labels are worth; null where it says nothing.
    """

    __tablename__ = "waves"
    __table_args__ = (
        CheckConstraint("price_cents >= 0", name="waves_price"),
        CheckConstraint("committed_cents >= 0 AND committed_cents <= budget_cents", name="waves_budget"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    queue_key: Mapped[str] = mapped_column(unique=True)
    data_digest: Mapped[str]
    classes: Mapped[list[str]]
    price_cents: Mapped[int] = mapped_column(BigInteger)
    budget_cents: Mapped[int] = mapped_column(BigInteger)
    committed_cents: Mapped[int] = mapped_column(BigInteger)
    double: Mapped[str]
    readings: Mapped[int]
    share: Mapped[float] = mapped_column(Float)
    seed: Mapped[int] = mapped_column(BigInteger)
    forecast: Mapped[dict[str, Any] | None]
    published_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Task(Base):
    """One image to read. `slots` counts the readings that are still to be handed out.

    `probabilities` are the model's, calibrated, in the order of the wave's classes; `neighbours` are the nearest
    labelled images, nearest first, each as its slice id and its label. Null where nobody said any.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("wave_id", "slice_id", name="tasks_slice"),
        UniqueConstraint("wave_id", "rank", name="tasks_rank"),
        CheckConstraint("wanted >= 1", name="tasks_wanted"),
        CheckConstraint("slots >= 0", name="tasks_slots"),
        CheckConstraint("purpose IN ('train', 'audit', 'control')", name="tasks_purpose"),
        Index("tasks_open", "wave_id", "rank", sqlite_where=text("slots > 0"), postgresql_where=text("slots > 0")),
        Index("tasks_disputed", "id", sqlite_where=text("disputed"), postgresql_where=text("disputed")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    wave_id: Mapped[int] = mapped_column(ForeignKey("waves.id"))
    slice_id: Mapped[str] = mapped_column(index=True)
    rank: Mapped[int]
    purpose: Mapped[str]
    reason: Mapped[str]
    model_label: Mapped[str | None]
    wanted: Mapped[int]
    slots: Mapped[int]
    disputed: Mapped[bool]
    probabilities: Mapped[list[float] | None]
    neighbours: Mapped[list[list[str]] | None]


class Lease(Base):
    """A task in a reader's hands, until it expires."""

    __tablename__ = "leases"
    __table_args__ = (UniqueConstraint("task_id", "reader_id", name="leases_task_reader"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"), index=True)
    token: Mapped[str] = mapped_column(unique=True)
    leased_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Reading(Base):
    """An answer, or the withdrawal of an earlier one by the same reader, which gives its money back."""

    __tablename__ = "readings"
    __table_args__ = (
        CheckConstraint("(answer IS NULL) = (withdraws IS NOT NULL)", name="readings_kind"),
        CheckConstraint("(answer IS NULL) = (token IS NULL)", name="readings_token"),
        Index("readings_task_reader", "task_id", "reader_id"),
        Index("readings_reader_at", "reader_id", "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"))
    answer: Mapped[str | None]
    withdraws: Mapped[int | None] = mapped_column(ForeignKey("readings.id"), unique=True)
    token: Mapped[str | None] = mapped_column(unique=True)
    paid_cents: Mapped[int] = mapped_column(BigInteger)
    leased_at: Mapped[datetime | None]
    at: Mapped[datetime] = mapped_column(index=True)


class Adjudication(Base):
    """What an adjudicator decided of readings that disagree; of several decisions the last one counts."""

    __tablename__ = "adjudications"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"))
    answer: Mapped[str]
    comment: Mapped[str]
    at: Mapped[datetime]


class Export(Base):
    """A time as of which labels went out: nothing that is read later is stamped at or before it."""

    __tablename__ = "exports"

    id: Mapped[int] = mapped_column(primary_key=True)
    as_of: Mapped[datetime] = mapped_column(index=True)
    digest: Mapped[str]


class Event(Base):
    """Who did what when, for the audit trail: every view and every answer."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    reader_id: Mapped[int | None] = mapped_column(ForeignKey("readers.id"))
    task_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"), index=True)
    wave_id: Mapped[int | None] = mapped_column(ForeignKey("waves.id"))
    kind: Mapped[str]
    detail: Mapped[dict[str, Any]]
