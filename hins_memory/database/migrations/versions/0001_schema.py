"""The first schema: turns, memories, retrievals and their outcomes, encoder versions and agent indexes.

Written out, not taken from tables.py: a migration never changes, while tables.py does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True)


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default)


def _time(name: str = "time", nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(53), nullable=nullable)


def _scope() -> list[sa.Column[str]]:
    return [_text(name, "") for name in ("owner", "tenant", "user", "agent", "run")]


def _digest() -> sa.Column[str]:
    return sa.Column("id", sa.String(64), nullable=False, unique=True)


def _of_retrieval(primary_key: bool = False) -> sa.Column[str]:
    parent = sa.ForeignKey("retrievals.id", ondelete="CASCADE")
    return sa.Column("retrieval_id", sa.Text, parent, primary_key=primary_key, nullable=False)


def upgrade() -> None:
    """Create every table and index."""
    _create_conversations()
    _create_retrievals()
    _create_registry()


def _create_conversations() -> None:
    op.create_table(
        "turns",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_scope(),
        _text("conversation"),
        _text("speaker"),
        _text("text"),
        _time(),
    )
    op.create_index("ix_turns_owner", "turns", ["owner", "time"])
    op.create_table(
        "memories",
        _seq(),
        _text("id"),
        *_scope(),
        _text("conversation"),
        _text("speaker"),
        _text("text"),
        _text("topic", ""),
        sa.Column("turn_ids", sa.JSON, nullable=False),
        _time(),
        _time("updated_at"),
        _time("deleted_at", nullable=True),
        sa.UniqueConstraint("owner", "id", name="uq_memories_owner_id"),
    )
    op.create_index("ix_memories_owner", "memories", ["owner", "time"])


def _create_retrievals() -> None:
    op.create_table(
        "retrievals",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_scope(),
        _text("query"),
        _text("encoder_version", ""),
        _time(),
    )
    op.create_index("ix_retrievals_owner", "retrievals", ["owner", "time"])
    op.create_table(
        "retrieval_results",
        _of_retrieval(primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True),
        _text("memory_id"),
        _text("text"),
        sa.Column("score", sa.Float(53), nullable=False),
    )
    op.create_index("ix_retrieval_results_memory_id", "retrieval_results", ["memory_id"])
    op.create_table("answers", _seq(), _digest(), _of_retrieval(), _text("text"), _time())
    op.create_index("ix_answers_retrieval_id", "answers", ["retrieval_id"])
    polarity = sa.Column("polarity", sa.String(8), nullable=False)
    op.create_table("feedback", _seq(), _digest(), _text("memory_id"), _of_retrieval(), polarity, _time())
    op.create_index("ix_feedback_memory_id", "feedback", ["memory_id"])
    op.create_index("ix_feedback_retrieval_id", "feedback", ["retrieval_id"])


def _create_registry() -> None:
    op.create_table(
        "encoder_versions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("manifest", sa.JSON, nullable=False),
        _time("created"),
        sa.Column("current", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "agent_indexes",
        _seq(),
        _text("agent_key"),
        _text("version"),
        _text("suffix"),
        sa.Column("state", sa.String(8), nullable=False),
        _time("created"),
        _time("changed"),
    )
    op.create_index("ix_agent_indexes_agent_key", "agent_indexes", ["agent_key"])
