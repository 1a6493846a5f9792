"""How far a swap is: what it does, and with how many of its records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns, empty."""
    op.add_column("agent_indexes", sa.Column("step", sa.Text, nullable=True))
    op.add_column("agent_indexes", sa.Column("done", sa.BigInteger, nullable=True))
    op.add_column("agent_indexes", sa.Column("records", sa.BigInteger, nullable=True))
