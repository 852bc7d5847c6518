"""The first schema: readers, waves, tasks, leases, readings, adjudications, exports and the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPEND_ONLY = ("readings", "adjudications", "exports", "events")
UNIQUE = {"readings": ("id", "token", "withdraws")}
"""Columns by which SQLite's INSERT OR REPLACE would put a row in another's place."""


def upgrade() -> None:
    """Make the tables, and the triggers that refuse to change what was read."""
    _people_and_waves()
    _tasks_and_leases()
    _readings()
    _records()
    for table in APPEND_ONLY:
        _keep(table)


def _people_and_waves() -> None:
    op.create_table(
        "readers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('reader', 'adjudicator', 'curator')", name="readers_role"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "waves",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("queue_key", sa.Text(), nullable=False),
        sa.Column("data_digest", sa.Text(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("price_cents", sa.BigInteger(), nullable=False),
        sa.Column("budget_cents", sa.BigInteger(), nullable=False),
        sa.Column("committed_cents", sa.BigInteger(), nullable=False),
        sa.Column("double", sa.Text(), nullable=False),
        sa.Column("readings", sa.Integer(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("committed_cents >= 0 AND committed_cents <= budget_cents", name="waves_budget"),
        sa.CheckConstraint("price_cents >= 0", name="waves_price"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("queue_key"),
    )


def _tasks_and_leases() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("wave_id", sa.Integer(), nullable=False),
        sa.Column("slice_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("model_label", sa.Text()),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("disputed", sa.Boolean(), nullable=False),
        sa.CheckConstraint("purpose IN ('train', 'audit', 'control')", name="tasks_purpose"),
        sa.CheckConstraint("slots >= 0", name="tasks_slots"),
        sa.CheckConstraint("wanted >= 1", name="tasks_wanted"),
        sa.ForeignKeyConstraint(["wave_id"], ["waves.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("wave_id", "rank", name="tasks_rank"),
        sa.UniqueConstraint("wave_id", "slice_id", name="tasks_slice"),
    )
    op.create_index("ix_tasks_slice_id", "tasks", ["slice_id"])
    op.create_index(
        "tasks_disputed", "tasks", ["id"], sqlite_where=sa.text("disputed"), postgresql_where=sa.text("disputed")
    )
    op.create_index(
        "tasks_open",
        "tasks",
        ["wave_id", "rank"],
        sqlite_where=sa.text("slots > 0"),
        postgresql_where=sa.text("slots > 0"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("reader_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("task_id", "reader_id", name="leases_task_reader"),
        sa.UniqueConstraint("token"),
    )
    op.create_index("ix_leases_expires_at", "leases", ["expires_at"])
    op.create_index("ix_leases_reader_id", "leases", ["reader_id"])


def _readings() -> None:
    op.create_table(
        "readings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("reader_id", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text()),
        sa.Column("withdraws", sa.Integer()),
        sa.Column("token", sa.Text()),
        sa.Column("paid_cents", sa.BigInteger(), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True)),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(answer IS NULL) = (token IS NULL)", name="readings_token"),
        sa.CheckConstraint("(answer IS NULL) = (withdraws IS NOT NULL)", name="readings_kind"),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.ForeignKeyConstraint(["withdraws"], ["readings.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token"),
        sa.UniqueConstraint("withdraws"),
    )
    op.create_index("ix_readings_at", "readings", ["at"])
    op.create_index("ix_readings_reader_id", "readings", ["reader_id"])
    op.create_index("readings_task_reader", "readings", ["task_id", "reader_id"])
    op.create_table(
        "adjudications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("reader_id", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_adjudications_task_id", "adjudications", ["task_id"])


def _records() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_exports_as_of", "exports", ["as_of"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reader_id", sa.Integer()),
        sa.Column("task_id", sa.Integer()),
        sa.Column("wave_id", sa.Integer()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.ForeignKeyConstraint(["wave_id"], ["waves.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_task_id", "events", ["task_id"])


def _keep(table: str) -> None:
    """Let the database refuse to change or delete rows of a table, whoever asks."""
    refusal = f"{table} are only ever added: write a further row"
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION keep_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{refusal}'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER keep_{table} BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION keep_{table}()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER keep_{table}_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        )
    same = " OR ".join(f"{column} = NEW.{column}" for column in UNIQUE.get(table, ("id",)))
    op.execute(
        f"CREATE TRIGGER keep_{table}_replace BEFORE INSERT ON {table} "  # noqa: S608  names of this file
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
    )
