"""What captures lost: told by `hins status`, also after the process has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "capture_losses",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("changed", sa.Float(53), nullable=False),
        sa.Column("dropped", sa.Integer, nullable=False),
        sa.Column("pushed_out", sa.Integer, nullable=False),
        sa.Column("redaction", sa.Integer, nullable=False),
        sa.Column("restarts", sa.Integer, nullable=False),
    )
