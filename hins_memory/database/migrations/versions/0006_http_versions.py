"""Which versions clients of `hins serve` asked for, and which of them were released."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "http_versions",
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("first_used", sa.Float(53), nullable=False),
        sa.Column("released", sa.Float(53), nullable=True),
    )
