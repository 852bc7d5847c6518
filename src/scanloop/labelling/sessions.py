"""Sessions of the page: 256 random bits in the browser, their SHA-256 in the store, over when idle or after a day."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from scanloop.labelling.readers import find_reader
from scanloop.labelling.schema import PageSession, Reader
from scanloop.labelling.settling import hand_back
from scanloop.labelling.store import Store, record

TOUCH = timedelta(minutes=1)
"""How exactly the store knows when a session was used last: a write a minute, not one a request."""


@dataclass(frozen=True)
class Lifetime:
    """When a session ends: unused for `idle`, and in any case `absolute` after it began."""

    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)


@dataclass(frozen=True)
class SignedIn:
    """Who a session belongs to.

    Attributes:
        reader: Their name.
        role: Their role at this moment.
        csrf: What a page of this session sends with whatever changes something.
        key: The session's digest, for limits of its own.
    """

    reader: str
    role: str
    csrf: str
    key: str


def sign_in(
    store: Store, name: str, lifetime: Lifetime, *, how: str, address: str, instead_of: str | None = None
) -> str:
    """A new session's secret; sessions that are over are removed.

    Args:
        store: The label store.
        name: Who logs in.
        lifetime: Of sessions.
        how: Who vouches for them, for the record: "password" or "proxy".
        address: Where they come from, for the record.
        instead_of: What the browser held before; that session ends, whoever's it was.

    Raises:
        RoleError: Nobody has this name, or they were disabled.
    """
    secret = secrets.token_urlsafe(32)
    with store.writing() as (session, at):
        who = find_reader(session, name)
        session.execute(delete(PageSession).where(PageSession.began_at <= at - lifetime.absolute))
        session.execute(delete(PageSession).where(PageSession.digest == _digest(instead_of or "")))
        values = {"digest": _digest(secret), "reader_id": who, "began_at": at, "seen_at": at}
        session.execute(insert(PageSession).values(values))
        record(session, at, "login", reader=who, how=how, address=address)
    return secret


def who_is(store: Store, secret: str | None, lifetime: Lifetime) -> SignedIn | None:
    """Whose session this is; None where there is none, it is over, or the reader was disabled."""
    if not secret or len(secret) > 100:
        return None
    digest = _digest(secret)
    columns = (PageSession.began_at, PageSession.seen_at, Reader.name, Reader.role)
    query = select(*columns).join(Reader, Reader.id == PageSession.reader_id)
    with store.reading() as session:
        found = session.execute(query.where(PageSession.digest == digest, Reader.disabled_at.is_(None))).one_or_none()
    now = store.clock()
    if found is None or _is_over(found.began_at, found.seen_at, now, lifetime):
        return None
    if now - found.seen_at >= TOUCH:
        with store.writing() as (session, at):
            session.execute(update(PageSession).where(PageSession.digest == digest).values(seen_at=at))
    return SignedIn(found.name, found.role, hashlib.sha256(f"csrf {secret}".encode()).hexdigest(), digest)


def sign_out(store: Store, secret: str) -> None:
    """End a session and hand back what its reader holds; one that is over already is left as it is."""
    with store.writing() as (session, at):
        query = delete(PageSession).where(PageSession.digest == _digest(secret)).returning(PageSession.reader_id)
        who = session.execute(query).scalar_one_or_none()
        if who is not None:
            hand_back(session, who, at)
            record(session, at, "logout", reader=who)


def refused_sign_in(store: Store, name: str, address: str) -> None:
    """Write down that a log-in failed; a name that is nobody's stays out: it may be a password in the wrong field."""
    with store.writing() as (session, at):
        who = session.scalar(select(Reader.id).where(Reader.name == name)) if name.isprintable() else None
        record(session, at, "login refused", reader=who, address=address)


def _is_over(began_at: datetime, seen_at: datetime, now: datetime, lifetime: Lifetime) -> bool:
    return now - seen_at >= lifetime.idle or now - began_at >= lifetime.absolute


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
