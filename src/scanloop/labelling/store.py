"""The label store: one database, SQLite in a file or PostgreSQL, brought to this version's schema when it is opened."""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from scanloop.errors import LabellingError
from scanloop.labelling.schema import Event, Export

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a transaction waits for the others before it gives up."""
CONNECTIONS = 6
"""Of one process, at most and for good: to open one costs more than what most of them are asked."""
_MIGRATION_LOCK, _WRITING_LOCK = 0x5CA9_0001, 0x5CA9_0002
_INSTANT = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def random_token() -> str:
    """A lease's token: 128 bits that nobody guesses."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Store:
    """An open label store.

    Attributes:
        engine: Connections to the database.
        looking: The same ones, for transactions that only look.
        clock: The time in UTC.
        new_token: A new lease's token, never the same twice.
        turn: What threads that write queue for: SQLite lets one write at a time, and whoever waits there only looks
            again from time to time.
    """

    engine: Engine
    looking: Engine
    clock: Callable[[], datetime]
    new_token: Callable[[], str]
    turn: AbstractContextManager[Any]

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[tuple[Session, datetime]]:
        """A transaction that changes something, and its time: all of it when the block ends, nothing where it raises.

        The time is later than any export's, whatever the clocks say, so that an export stays what it was. On SQLite
        a transaction is alone from its first statement on. On PostgreSQL it holds the rows that it locks, in this
        order: reader, tasks by number, wave; one that is `alone` waits for those under way, and they for it.

        Args:
            alone: Keep all others out: for what counts or closes.
        """
        with self.turn, Session(self.engine) as session, session.begin():
            if self.engine.dialect.name == "postgresql":
                lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
                session.execute(select(lock(_WRITING_LOCK)))
            exported = session.scalar(select(func.max(Export.as_of)))
            now = self.clock()
            yield session, now if exported is None else max(now, exported + _INSTANT)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only looks, at one state of the database; on SQLite it waits for nobody."""
        with Session(self.looking) as session, session.begin():
            yield session


def open_store(
    url: str,
    *,
    clock: Callable[[], datetime] = utc_now,
    new_token: Callable[[], str] = random_token,
    may_be_new: bool = True,
) -> Store:
    """The label store at an address; a new one is made, an older one is brought to this version's schema.

    Several processes may open it at once: one migrates, in one transaction, and the others wait.

    Args:
        url: `sqlite:///labels.db`, or `postgresql://user:password@host/database`.
        clock: The time in UTC.
        new_token: A new lease's token.
        may_be_new: False refuses a file that is not there, so that a mistyped address is no empty store.

    Raises:
        LabellingError: The address is wrong, the database cannot be reached, or a newer scanloop made its schema.
    """
    address = _address(url)
    if not may_be_new and address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        raise LabellingError(
            f"{address.render_as_string()}: no such label store; scanloop label publish and scanloop label reader add "
            "make one"
        )
    try:
        engine = _engine(address)
        with engine.connect() as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _migrate(connection)
    except (DBAPIError, NoSuchModuleError, ImportError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        raise LabellingError(f"{address.render_as_string()}: the label store cannot be opened ({reason})") from error
    turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()
    return Store(engine, engine.execution_options(only_looks=True), clock, new_token, turn)


def record(
    session: Session, at: datetime, kind: str, *, reader: int | None = None, task: int | None = None,
    wave: int | None = None, **detail: Any,
) -> None:  # fmt: skip
    """Write down in the audit trail who did what."""
    values = {"at": at, "kind": kind, "reader_id": reader, "task_id": task, "wave_id": wave, "detail": detail}
    session.execute(insert(Event).values(values))


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError as error:  # its text repeats the address, which may hold a password
        raise LabellingError("the label store's address is none: sqlite:///FILE or postgresql://HOST/NAME") from error
    kind = address.get_backend_name()
    if kind == "postgresql":
        return address.set(drivername="postgresql+pg8000")
    if kind != "sqlite" or address.database in (None, "", ":memory:"):
        raise LabellingError(
            f"{address.render_as_string()}: a label store is a file, sqlite:///FILE, or postgresql://HOST/NAME"
        )
    return address


def _engine(address: URL) -> Engine:
    if address.get_backend_name() == "postgresql":
        from scanloop.labelling.postgres import postgres_engine  # pg8000 where it is needed

        return postgres_engine(address, CONNECTIONS)
    Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    # Errors go to logs, and values hold slice ids, tokens and hashes of passwords.
    engine = create_engine(
        address, connect_args={"timeout": BUSY_SECONDS}, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction of its own
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        only_looks = connection.get_execution_options().get("only_looks", False)
        connection.exec_driver_sql("BEGIN" if only_looks else "BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection, revision: str = "head") -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    for found in MigrationContext.configure(connection).get_current_heads():
        try:
            scripts.get_revision(found)
        except CommandError as error:
            raise LabellingError(
                f"{connection.engine.url.render_as_string()}: a newer scanloop made this label store (schema "
                f"{found}, this one knows up to {scripts.get_current_head()}); update scanloop"
            ) from error
    command.upgrade(config, revision)
