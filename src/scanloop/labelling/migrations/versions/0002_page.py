"""The clinicians' page: passwords, sessions, readers who may not read any more, a model's word, alike images."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the page's tables and columns; what was read is not touched."""
    op.add_column("readers", sa.Column("disabled_at", sa.DateTime(timezone=True)))
    op.add_column("tasks", sa.Column("probabilities", sa.JSON()))
    op.add_column("tasks", sa.Column("neighbours", sa.JSON()))
    op.add_column("waves", sa.Column("forecast", sa.JSON()))
    op.create_table(
        "passwords",
        sa.Column("reader_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.PrimaryKeyConstraint("reader_id"),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("reader_id", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["reader_id"], ["readers.id"]),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_sessions_reader_id", "sessions", ["reader_id"])
    op.create_index("ix_sessions_began_at", "sessions", ["began_at"])
    op.drop_index("ix_readings_reader_id", "readings")
    op.create_index("readings_reader_at", "readings", ["reader_id", "at"])
