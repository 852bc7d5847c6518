"""Waves: a queue is published once and becomes tasks; the next one closes it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import insert, select, union, update
from sqlalchemy.orm import Session

from scanloop.artifacts import check_artifact, read_json, read_table
from scanloop.build import RECORD, read_key
from scanloop.errors import ArtifactError, LabellingError
from scanloop.labelling.double_reading import NO_LABEL, DoubleReading
from scanloop.labelling.limits import Limits, allowed
from scanloop.labelling.readers import find_reader
from scanloop.labelling.schema import Lease, Task, Wave
from scanloop.labelling.settling import settle, standing
from scanloop.labelling.store import Store, record

ROWS_AT_ONCE = 1000
LARGEST_CENTS = 10**13


@dataclass(frozen=True)
class Published:
    """A wave.

    Attributes:
        wave: Its number.
        tasks: Images that are asked for.
        left_out: Images of the queue that are not, as they are read or being read, or passed a limit.
        is_new: Whether it was published now.
        passed: Of those left out, those that passed a limit.
        limit: Annotations that the limits still allowed; None without one.
    """

    wave: int
    tasks: int
    left_out: int
    is_new: bool
    passed: int = 0
    limit: int | None = None


@dataclass(frozen=True)
class _Queue:
    key: str
    data_digest: str
    classes: list[str]
    price_cents: int
    budget_cents: int
    rows: pd.DataFrame
    forecast: dict[str, Any] | None


def publish(
    store: Store,
    queue: Path,
    catalog: Path,
    *,
    policy: DoubleReading | None = None,
    model_labels: Mapping[str, str] | None = None,
    budget_eur: Decimal | None = None,
    limits: Limits | None = None,
) -> Published:
    """Make a queue's images tasks, most wanted first, and close the wave before it; once for each queue.

    An image that was read in an earlier wave, or lies before a reader, is left out: nothing is paid twice.

    Args:
        store: The label store.
        queue: Artifact of `acquire`.
        catalog: Artifact of `ingest` that the queue was made from: the classes.
        policy: Which tasks are read twice; none by default.
        model_labels: The model's class of each slice id, for the policy "disagreement"; no reader sees it.
        budget_eur: Most that the wave's readings may cost together, in euros; the queue's budget by default.
        limits: Most annotations of the store; the least wanted images that pass them are left out, and the wave's
            budget pays for no more.

    Raises:
        ArtifactError: The queue is none, or its price is no whole number of cents.
        LabellingError: The classes differ from those of earlier waves, or the policy lacks the model's labels.
        BudgetError: A limit is reached.
    """
    policy, wanted = policy or DoubleReading(), _read(queue, catalog, budget_eur)
    labels = dict(model_labels or {})
    if policy.which == "disagreement" and not labels:
        raise LabellingError("double reading where model and reader disagree needs the model's labels of the queue")
    if unknown := sorted({*labels.values()} - {*wanted.classes}):
        raise LabellingError(f"the model's labels hold {unknown}, which are none of {wanted.classes}")
    with store.writing(alone=True) as (session, at):
        known = session.execute(select(Wave.id).where(Wave.queue_key == wanted.key)).scalar_one_or_none()
        if known is not None:
            tasks = len(session.scalars(select(Task.id).where(Task.wave_id == known)).all())
            return Published(known, tasks, len(wanted.rows) - tasks, is_new=False)
        _same_classes(session, wanted.classes)
        _close_open(session, at)
        left = allowed(session, limits or Limits(), at)
        fresh = wanted.rows[~wanted.rows["slice_id"].isin(_taken(session))]
        rows, budget_cents = _within(fresh, wanted, policy, left)
        number = _insert_wave(session, replace(wanted, budget_cents=budget_cents), policy, at)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows.iloc[start : start + ROWS_AT_ONCE].to_dict("records")
            session.execute(insert(Task).values([_task(row, number, policy, labels) for row in part]))
        left_out, passed = len(wanted.rows) - len(rows), len(fresh) - len(rows)
        record(session, at, "publish", wave=number, tasks=len(rows), left_out=left_out, queue=wanted.key)
        return Published(number, len(rows), left_out, is_new=True, passed=passed, limit=left)


def close_wave(store: Store, by: str) -> int | None:
    """Number of the wave that is closed now, None where none was open; what is handed out may still be answered.

    A task that lacks readings then counts with those at hand.

    Args:
        store: The label store.
        by: Name of a curator.

    Raises:
        RoleError: The name is no curator's.
    """
    with store.writing(alone=True) as (session, at):
        return _close_open(session, at, find_reader(session, by, "curator"))


def raise_budget(store: Store, by: str, budget_eur: Decimal) -> int:
    """Number of the open wave, whose readings may cost this much together from now on; the same again is as once.

    Args:
        store: The label store.
        by: Name of a curator.
        budget_eur: All that the wave may cost, in euros; no less than what it may cost already.

    Raises:
        RoleError: The name is no curator's.
        LabellingError: No wave is open, or the amount is smaller than the budget is or no whole number of cents.
    """
    budget = cents(budget_eur)
    if budget > LARGEST_CENTS:
        raise LabellingError(f"EUR {budget_eur} is more than a wave's budget can be")
    with store.writing() as (session, at):
        who = find_reader(session, by, "curator")
        query = select(Wave.id, Wave.budget_cents).where(Wave.closed_at.is_(None)).with_for_update()
        wave = session.execute(query).one_or_none()
        if wave is None:
            raise LabellingError("no wave is open; publish a queue, whose budget is given with it")
        if budget < wave.budget_cents:
            raise LabellingError("a budget is only ever raised; close the wave to spend no more of it")
        if budget > wave.budget_cents:
            session.execute(update(Wave).where(Wave.id == wave.id).values(budget_cents=budget))
            record(session, at, "budget", reader=who, wave=wave.id, before=wave.budget_cents, after=budget)
        return int(wave.id)


def cents(euros: Any) -> int:
    """Whole cents in an amount of euros.

    >>> cents(0.55), cents("10")
    (55, 1000)

    Raises:
        LabellingError: It is no whole number of cents, or negative.
    """
    amount = Decimal(str(euros)) * 100
    if not amount.is_finite() or amount < 0 or amount != int(amount):
        raise LabellingError(f"EUR {euros} is no whole number of cents; the label store pays in cents")
    return int(amount)


def _read(queue: Path, catalog: Path, budget_eur: Decimal | None) -> _Queue:
    check_artifact(queue, "queue")
    rows, facts = read_table(queue, "queue.parquet"), read_json(queue / "queue.json")
    about, made_from = read_json(catalog / "catalog.json"), read_json(queue / RECORD).get("inputs", {}).get("catalog")
    if made_from is not None and made_from != read_key(catalog):
        raise LabellingError(f"{queue} was not made from {catalog}, but from another catalog; name that with --catalog")
    price = facts["price_per_label_eur"]
    if not (rows["price"] == price).all():
        raise ArtifactError(f"{queue}: its images have several prices; publish one queue for each price")
    if rows["slice_id"].duplicated().any() or rows["rank"].duplicated().any():
        raise ArtifactError(f"{queue}: an image or a rank stands in it twice; run acquire again")
    budget = Decimal(str(facts["budget_eur"])) if budget_eur is None else budget_eur
    classes = [str(name) for name in about["classes"]]
    if reserved := [name for name in classes if name in NO_LABEL]:
        raise LabellingError(f"the class {reserved[0]!r} is called like an answer that gives no label; rename it")
    rows = rows.sort_values("rank").assign(purpose=rows["purpose"].fillna("train"), reason=rows["reason"].fillna(""))
    return _Queue(
        read_key(queue), str(about["data_digest"]), classes, cents(price), cents(budget), rows, facts.get("forecast")
    )


def _within(rows: pd.DataFrame, wanted: _Queue, policy: DoubleReading, left: int | None) -> tuple[pd.DataFrame, int]:
    """The most wanted images whose readings a limit holds, and the budget that pays for no more than it.

    Readings that a policy adds later, where model and reader disagree, the budget bounds; free ones count beforehand.
    """
    if left is None:
        return rows, wanted.budget_cents
    later = policy.which == "disagreement" and wanted.price_cents == 0
    each = [policy.readings if later else policy.at_first(slice_id) for slice_id in rows["slice_id"]]
    return rows[np.cumsum(each) <= left], min(wanted.budget_cents, left * wanted.price_cents)


def _same_classes(session: Session, classes: list[str]) -> None:
    for earlier in session.scalars(select(Wave.classes)):
        if earlier != classes:
            raise LabellingError(
                f"this label store asks for {', '.join(earlier)}, the queue for {', '.join(classes)}; "
                "publish it into a store of its own"
            )


def _insert_wave(session: Session, wanted: _Queue, policy: DoubleReading, at: Any) -> int:
    values = {
        "queue_key": wanted.key, "data_digest": wanted.data_digest, "classes": wanted.classes,
        "price_cents": wanted.price_cents, "budget_cents": wanted.budget_cents, "committed_cents": 0,
        "double": policy.which, "readings": policy.readings, "share": policy.share, "seed": policy.seed,
        "forecast": wanted.forecast, "published_at": at,
    }  # fmt: skip
    return session.execute(insert(Wave).values(values).returning(Wave.id)).scalar_one()


def _task(row: Mapping[Any, Any], wave: int, policy: DoubleReading, labels: Mapping[str, str]) -> dict[str, Any]:
    count = policy.at_first(row["slice_id"])
    return {
        "wave_id": wave, "slice_id": row["slice_id"], "rank": int(row["rank"]), "purpose": row["purpose"],
        "reason": row["reason"], "model_label": labels.get(row["slice_id"]), "wanted": count, "slots": count,
        "disputed": False, "probabilities": _numbers(row.get("probabilities")),
        "neighbours": _pairs(row.get("neighbours"), row.get("neighbour_labels")),
    }  # fmt: skip


def _numbers(values: Any) -> list[float] | None:
    return [float(value) for value in values] if isinstance(values, Sequence | np.ndarray) else None


def _pairs(ids: Any, labels: Any) -> list[list[str]] | None:
    if not isinstance(ids, Sequence | np.ndarray) or not isinstance(labels, Sequence | np.ndarray):
        return None
    return [[str(one), str(label)] for one, label in zip(ids, labels, strict=True)]


def _taken(session: Session) -> set[str]:
    """Images that were read, or lie before a reader."""
    touched = union(select(standing().subquery().c.task_id), select(Lease.task_id))
    return {*session.scalars(select(Task.slice_id).where(Task.id.in_(touched)))}


def _close_open(session: Session, at: Any, by: int | None = None) -> int | None:
    last = None
    for last in session.scalars(select(Wave.id).where(Wave.closed_at.is_(None)).order_by(Wave.id)).all():
        session.execute(update(Wave).where(Wave.id == last).values(closed_at=at))
        for task in _half_read(session, last):
            settle(session, task)
        record(session, at, "close", wave=last, reader=by)
    return last


def _half_read(session: Session, wave: int) -> Iterable[int]:
    read = standing().subquery()
    query = select(Task.id).where(Task.wave_id == wave, Task.id.in_(select(read.c.task_id)), ~Task.disputed)
    return session.scalars(query.order_by(Task.id)).all()
