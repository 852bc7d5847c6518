"""Alembic runs this file with the connection that `scanloop.labelling.store` hands it, inside its transaction."""

from alembic import context

from scanloop.labelling.schema import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
