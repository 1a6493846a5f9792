"""What was written since a swap, so that a rollback brings along no more than that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table; what was written to an existing index since its swap is not known."""
    op.create_table(
        "index_changes",
        sa.Column("agent_key", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(64), primary_key=True),
        sa.Column("record", sa.Text, primary_key=True),
    )
    op.execute(
        "INSERT INTO index_changes (agent_key, kind, record) "
        "SELECT DISTINCT agent_key, '*', '*' FROM agent_indexes WHERE state IN ('previous', 'shadow')"
    )
