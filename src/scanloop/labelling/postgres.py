"""Connections to PostgreSQL through pg8000 that ask and hear once for a statement, where pg8000 does so three times."""

import time
from collections.abc import Sequence
from typing import Any

from pg8000.converters import make_params
from pg8000.core import NULL_BYTE, SYNC_MSG, Context, _flush, _write
from pg8000.legacy import Connection as Pg8000
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

_PING_SECONDS = 5.0
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class OneTrip(Pg8000):  # type: ignore[misc]  # pg8000 ships no types
    """A connection that sends a statement, its values and the wish for its rows together.

    The protocol allows that (PostgreSQL, "Extended Query"): after an error the server skips all up to the end of it.
    """

    def execute_unnamed(
        self, statement: str, vals: Sequence[Any] = (), oids: Sequence[int] = (), stream: Any = None
    ) -> Context:
        """Rows of a statement with its values."""
        context = Context(statement, stream=stream)
        self.send_PARSE(NULL_BYTE, statement, oids)
        self.send_DESCRIBE_STATEMENT(NULL_BYTE)
        self.send_BIND(NULL_BYTE, make_params(self.py_types, vals))
        self.send_EXECUTE()
        _write(self._sock, SYNC_MSG)
        _flush(self._sock)
        self.handle_messages(context)
        return context


def postgres_engine(address: URL, connections: int) -> Engine:
    """Connections to a database on PostgreSQL; those with the option `only_looks` see one state of it."""
    engine = create_engine(
        address, isolation_level="READ COMMITTED", pool_size=connections, max_overflow=0, hide_parameters=True
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_: Any, __: Any, arguments: list[Any], named: dict[str, Any]) -> OneTrip:
        return OneTrip(*arguments, **named)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        if connection.get_execution_options().get("only_looks", False):
            connection.exec_driver_sql(_SNAPSHOT)

    @event.listens_for(engine, "checkin")
    def _given_back(_: Any, kept: ConnectionPoolEntry) -> None:
        kept.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _taken(connection: Any, kept: ConnectionPoolEntry, _: Any) -> None:
        """Ask whether the server is still there, but not of a connection that spoke just now."""
        if time.monotonic() - kept.info.get("idle_since", time.monotonic()) > _PING_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    return engine
