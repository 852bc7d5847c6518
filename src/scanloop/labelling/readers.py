"""Who reads: readers with a role, known by name."""

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from scanloop.errors import LabellingError, RoleError
from scanloop.labelling.schema import Reader
from scanloop.labelling.store import Store, record

ROLES = ("reader", "adjudicator", "curator")
"""What a reader may do; a role includes those before it: read, decide between readings, publish and close waves."""
LONGEST_NAME = 200


def add_reader(store: Store, name: str, role: str = "reader") -> int:
    """Number of a reader, who is added, or given this role.

    Raises:
        LabellingError: The name is empty, too long or holds characters that cannot be seen, or there is no such role.
    """
    if not _is_name(name):
        raise LabellingError(f"a reader's name has 1 to {LONGEST_NAME} characters that can be seen")
    if role not in ROLES:
        raise LabellingError(f"there is no role {role!r}; roles are {', '.join(ROLES)}")
    with store.writing(alone=True) as (session, at):
        known = session.execute(select(Reader.id, Reader.role).where(Reader.name == name)).one_or_none()
        if known is not None and known.role == role:
            return int(known.id)
        if known is not None:
            session.execute(update(Reader).where(Reader.id == known.id).values(role=role))
            number = int(known.id)
        else:
            values = {"name": name, "role": role, "added_at": at}
            number = session.execute(insert(Reader).values(values).returning(Reader.id)).scalar_one()
        record(session, at, "role", reader=number, role=role)
        return number


def find_reader(session: Session, name: str, role: str = "reader") -> int:
    """Number of a reader who has this role, locked until the transaction ends: a reader does one thing at a time.

    Raises:
        RoleError: Nobody has this name, or their role does not include the one asked for.
    """
    query = select(Reader.id, Reader.role).where(Reader.name == name).with_for_update(key_share=True)
    found = session.execute(query).one_or_none() if _is_name(name) else None
    if found is None:
        raise RoleError("nobody with this name reads here; a curator adds readers")
    if ROLES.index(found.role) < ROLES.index(role):
        raise RoleError(f"this needs the role {role}, and this reader's is {found.role}; a curator changes roles")
    return int(found.id)


def _is_name(name: str) -> bool:
    return bool(name.strip()) and len(name) <= LONGEST_NAME and name.isprintable()
