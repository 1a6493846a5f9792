"""Leases, so that processes on several hosts exclude one another, and rounds of the loop, for schedules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False, server_default=""),
        sa.Column("place", sa.Text, nullable=False, server_default=""),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("acquired", sa.Float(53), nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("started", sa.Float(53), nullable=False),
        sa.Column("finished", sa.Float(53), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False, server_default=""),
        sa.Column("version", sa.Text, nullable=False, server_default=""),
        sa.Column("answers", sa.Integer, nullable=False),
        sa.Column("feedback", sa.Integer, nullable=False),
    )
    op.create_index("ix_rounds_agent", "rounds", ["agent"])
