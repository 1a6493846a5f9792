"""Alembic's environment: runs the migrations on the connection, and in the transaction, that `open_database` holds."""

from __future__ import annotations

from alembic import context

from hins_memory.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
