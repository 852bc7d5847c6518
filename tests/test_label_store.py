"""The database: made and brought up to date under a lock, a newer one refused, and what was read is kept by it."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from label_stores import enrol, publish_images, read_one
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from scanloop.errors import LabellingError
from scanloop.labelling.adjudication import adjudicate
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.export import export
from scanloop.labelling.reading import withdraw
from scanloop.labelling.schema import APPEND_ONLY, Base
from scanloop.labelling.store import Store, _address, _engine, _migrate, open_store


def execute(store: Store, sql: str) -> int:
    with store.writing() as (session, _):
        return session.connection().exec_driver_sql(sql).rowcount


def fetch(store: Store, sql: str) -> list[tuple[object, ...]]:
    with store.reading() as session:
        return [tuple(row) for row in session.connection().exec_driver_sql(sql)]


@pytest.fixture
def used(store: Store, tmp_path: Path) -> Store:
    """A store with at least one row in every table that must keep its rows."""
    publish_images(store, tmp_path, 3, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    enrol(store, "ada", role="adjudicator")
    task = read_one(store, "anna", "normal").task
    read_one(store, "ben", "pneumonia")
    adjudicate(store, "ada", task, "normal")
    withdraw(store, "anna", read_one(store, "anna", "normal").task)
    export(store, tmp_path / "labels")
    return store


def test_the_database_itself_refuses_to_change_or_delete_what_was_written(used: Store) -> None:
    for table in APPEND_ONLY:
        before = fetch(used, f"SELECT * FROM {table} ORDER BY id")
        assert before
        changes = [f"UPDATE {table} SET id = id + 1000", f"DELETE FROM {table} WHERE id = 1", f"DELETE FROM {table}"]
        if used.engine.dialect.name == "sqlite":
            changes.append(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE id = 1")
        else:
            changes.append(f"TRUNCATE {table} CASCADE")
        for change in changes:
            with pytest.raises(DBAPIError, match="only ever added"):
                execute(used, change)
        assert fetch(used, f"SELECT * FROM {table} ORDER BY id") == before


def test_the_database_itself_refuses_what_cannot_be(used: Store) -> None:
    lease = "INSERT INTO leases (task_id, reader_id, token, leased_at, expires_at) SELECT"
    for change in (
        "UPDATE waves SET committed_cents = budget_cents + 1",
        "UPDATE waves SET committed_cents = -1",
        "UPDATE tasks SET slots = -1",
        "UPDATE readers SET role = 'king'",
        f"{lease} 999, reader_id, 'x', leased_at, expires_at FROM leases",
        f"{lease} task_id, reader_id, 'x', leased_at, expires_at FROM leases",
    ):
        with pytest.raises(DBAPIError, match=r"(?i)constraint"):
            execute(used, change)


def test_migrations_from_nothing_make_exactly_the_tables_of_the_code(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_store_of_the_first_schema_is_brought_up_to_date_with_all_that_was_read(address: str) -> None:
    engine = _engine(_address(address))
    with engine.connect() as connection, connection.begin():
        _migrate(connection, "0001")
        for row in (
            "INSERT INTO readers (id, name, role, added_at) VALUES (1, 'anna', 'reader', '2026-03-01 08:00:00')",
            "INSERT INTO waves VALUES (1, 'key', 'd', '[\"normal\"]', 55, 1000, 55, 'none', 2, 0.1, 0, "
            "'2026-03-01 08:00:00', NULL)",
            "INSERT INTO tasks VALUES (1, 1, 'slice', 1, 'train', 'why', NULL, 1, 0, false)",
            "INSERT INTO readings VALUES (1, 1, 1, 'normal', NULL, 'token', 55, NULL, '2026-03-01 08:01:00')",
        ):
            connection.exec_driver_sql(row)
    engine.dispose()
    opened = open_store(address)
    assert fetch(opened, "SELECT name, disabled_at FROM readers") == [("anna", None)]
    assert fetch(opened, "SELECT slice_id, probabilities, neighbours FROM tasks") == [("slice", None, None)]
    assert fetch(opened, "SELECT answer, paid_cents FROM readings") == [("normal", 55)]
    with pytest.raises(DBAPIError, match="only ever added"):
        execute(opened, "DELETE FROM readings")
    opened.engine.dispose()


def test_many_may_open_a_new_store_at_once_and_it_is_migrated_once(address: str) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            opened = open_store(address)
            found.append(fetch(opened, "SELECT version_num FROM alembic_version"))
            opened.engine.dispose()
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[("0002",)]] * 8


def test_a_store_that_a_newer_scanloop_made_is_refused_and_left_as_it_is(store: Store, address: str) -> None:
    execute(store, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LabellingError, match=r"newer scanloop made this label store .schema 9999, .* 0002.*update"):
        open_store(address)
    assert fetch(store, "SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.parametrize("url", [
    "labels.db", "", "sqlite://", "sqlite:///:memory:", "mysql://host/labels",
    "postgresql://anna:hunter2@127.0.0.1:1/labels", "sqlite:////proc/labels.db",
])  # fmt: skip
def test_an_address_that_is_none_is_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(LabellingError) as refused:
        open_store(url)
    assert "hunter2" not in str(refused.value)


def test_sqlite_waits_writes_ahead_syncs_and_checks_foreign_keys(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'deep' / 'labels.db'}")
    assert fetch(store, "PRAGMA journal_mode") == [("wal",)]
    assert fetch(store, "PRAGMA synchronous") == [(2,)], "FULL: an acknowledged reading survives a loss of power"
    assert fetch(store, "PRAGMA foreign_keys") == [(1,)]
    assert fetch(store, "PRAGMA busy_timeout") == [(30_000,)]


def test_a_failure_within_a_transaction_leaves_nothing_of_it(used: Store) -> None:
    before = fetch(used, "SELECT * FROM readings ORDER BY id") + fetch(used, "SELECT * FROM leases ORDER BY id")

    @event.listens_for(used.engine, "before_cursor_execute")
    def fail(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO events"):
            raise RuntimeError("the last statement failed")

    with pytest.raises(RuntimeError):
        read_one(used, "ben", "normal")
    event.remove(used.engine, "before_cursor_execute", fail)
    after = fetch(used, "SELECT * FROM readings ORDER BY id") + fetch(used, "SELECT * FROM leases ORDER BY id")
    assert after == before
