"""Who reads: readers with a role, known by name."""

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from scanloop.errors import LabellingError, RoleError
from scanloop.labelling.schema import PageSession, Reader
from scanloop.labelling.settling import hand_back
from scanloop.labelling.store import Store, record

ROLES = ("reader", "adjudicator", "curator")
"""What a reader may do; a role includes those before it: read, decide between readings, publish and close waves."""
LONGEST_NAME = 200


def add_reader(store: Store, name: str, role: str | None = None) -> int:
    """Number of a reader, who is added, or given this role.

    Args:
        store: The label store.
        name: Of the reader.
        role: None leaves a known reader's as it is, and makes a new one a reader.

    Raises:
        LabellingError: The name is empty, too long or holds characters that cannot be seen, or there is no such role.
    """
    if not is_name(name):
        raise LabellingError(f"a reader's name has 1 to {LONGEST_NAME} characters that can be seen")
    if role is not None and role not in ROLES:
        raise LabellingError(f"there is no role {role!r}; roles are {', '.join(ROLES)}")
    with store.writing(alone=True) as (session, at):
        known = session.execute(select(Reader.id, Reader.role).where(Reader.name == name)).one_or_none()
        if known is not None and role in (None, known.role):
            return int(known.id)
        if known is not None:
            session.execute(update(Reader).where(Reader.id == known.id).values(role=role))
            number = int(known.id)
        else:
            role = role or ROLES[0]
            values = {"name": name, "role": role, "added_at": at}
            number = session.execute(insert(Reader).values(values).returning(Reader.id)).scalar_one()
        record(session, at, "role", reader=number, role=role)
        return number


def disable_reader(store: Store, name: str) -> None:
    """Log a reader out everywhere, hand back the tasks in their hands, and refuse them from now on; twice is as once.

    What they read stays and counts.

    Raises:
        RoleError: Nobody has this name.
    """
    with store.writing(alone=True) as (session, at):
        who = _known(session, name)
        session.execute(delete(PageSession).where(PageSession.reader_id == who))
        hand_back(session, who, at)
        off = update(Reader).where(Reader.id == who, Reader.disabled_at.is_(None)).values(disabled_at=at)
        if session.execute(off.returning(Reader.id)).scalar_one_or_none() is not None:
            record(session, at, "disable", reader=who)


def enable_reader(store: Store, name: str) -> None:
    """Let a reader who was disabled read again.

    Raises:
        RoleError: Nobody has this name.
    """
    with store.writing(alone=True) as (session, at):
        who = _known(session, name)
        on = update(Reader).where(Reader.id == who, Reader.disabled_at.is_not(None)).values(disabled_at=None)
        if session.execute(on.returning(Reader.id)).scalar_one_or_none() is not None:
            record(session, at, "enable", reader=who)


def find_reader(session: Session, name: str, role: str = "reader") -> int:
    """Number of a reader who has this role, locked until the transaction ends: a reader does one thing at a time.

    Raises:
        RoleError: Nobody has this name, or their role does not include the one asked for.
    """
    query = select(Reader.id, Reader.role, Reader.disabled_at).where(Reader.name == name)
    found = session.execute(query.with_for_update(key_share=True)).one_or_none() if is_name(name) else None
    if found is None:
        raise RoleError("nobody with this name reads here; a curator adds readers")
    if found.disabled_at is not None:
        raise RoleError("this reader was disabled; a curator enables them again")
    if ROLES.index(found.role) < ROLES.index(role):
        raise RoleError(f"this needs the role {role}, and this reader's is {found.role}; a curator changes roles")
    return int(found.id)


def _known(session: Session, name: str) -> int:
    """Number of a reader, disabled or not."""
    query = select(Reader.id).where(Reader.name == name).with_for_update()
    found = session.execute(query).scalar_one_or_none() if is_name(name) else None
    if found is None:
        raise RoleError("nobody with this name reads here; a curator adds readers")
    return int(found)


def role_of(store: Store, name: str) -> str:
    """Role of a reader, disabled or not.

    Raises:
        RoleError: Nobody has this name.
    """
    with store.reading() as session:
        found = session.scalar(select(Reader.role).where(Reader.name == name)) if is_name(name) else None
    if found is None:
        raise RoleError("nobody with this name reads here; a curator adds readers")
    return found


def is_name(name: str) -> bool:
    """Whether a text can be a reader's name."""
    return bool(name.strip()) and len(name) <= LONGEST_NAME and name.isprintable()
