"""Which versions serve single scopes in the place of the common one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "scoped_versions",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("changed", sa.Float(53), nullable=False),
    )
