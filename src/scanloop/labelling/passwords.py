"""Passwords: kept as Argon2id's hashes, asked in the same time for names that are known and those that are not."""

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, insert, select

from scanloop.errors import LabellingError, RoleError
from scanloop.labelling.readers import find_reader, is_name
from scanloop.labelling.schema import PageSession, Password, Reader
from scanloop.labelling.store import Store, record

SHORTEST, LONGEST = 12, 1000
_HASHER = PasswordHasher()  # RFC 9106, low memory: 64 MiB and three passes
_AT_ONCE = threading.BoundedSemaphore(2)
"""Hashes under way: each takes 64 MiB, so a flood of log-ins waits here and fills no memory."""
_NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$2zmc2UcjSSqVKvq6SFPvtA$yAliB5bWs79TkKmmjWCS3ly77MLaCHEbNXy9u5MTfIs"
"""A hash that no password has; asked where there is none, so that the time tells nothing."""


def set_password(store: Store, name: str, password: str) -> None:
    """Give a reader a password; whoever is logged in under the old one is logged out.

    Raises:
        LabellingError: It is shorter than 12 or longer than 1,000 characters.
        RoleError: Nobody has this name.
    """
    refuse_weak(password)
    with _AT_ONCE:
        hashed = _HASHER.hash(password)
    with store.writing(alone=True) as (session, at):
        who = find_reader(session, name)
        session.execute(delete(Password).where(Password.reader_id == who))
        session.execute(insert(Password).values(reader_id=who, hash=hashed, set_at=at))
        session.execute(delete(PageSession).where(PageSession.reader_id == who))
        record(session, at, "password", reader=who)


def refuse_weak(password: str) -> None:
    """Return if a password has a length that is taken.

    Raises:
        LabellingError: It is shorter than 12 or longer than 1,000 characters.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise LabellingError(f"a password has {SHORTEST} to {LONGEST} characters")


def check_password(store: Store, name: str, password: str) -> None:
    """Return if this is the password of a reader who may read.

    Raises:
        RoleError: It is not; nothing tells whether the name is known.
    """
    found = _hash_of(store, name)
    try:
        with _AT_ONCE:
            _HASHER.verify(found or _NOBODYS, password[: LONGEST + 1])
    except (VerificationError, InvalidHashError) as error:
        raise RoleError("name or password is wrong") from error
    if found is None:
        raise RoleError("name or password is wrong")


def _hash_of(store: Store, name: str) -> str | None:
    if not is_name(name):
        return None
    query = select(Password.hash).join(Reader, Reader.id == Password.reader_id)
    with store.reading() as session:
        return session.scalar(query.where(Reader.name == name, Reader.disabled_at.is_(None)))
