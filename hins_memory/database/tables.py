"""Tables of a project's database: the log, the registry of encoder versions and indexes, leases and rounds.

Times are seconds since the Unix epoch (UTC). Scope columns hold "" where a part is not given; `owner` is the key
of the scope without its run (`Scope.owner.key`).
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "agent_indexes",
    "answers",
    "capture_losses",
    "encoder_versions",
    "feedback",
    "index_changes",
    "leases",
    "memories",
    "metadata",
    "retrieval_results",
    "retrievals",
    "rounds",
    "scoped_versions",
    "turns",
]

metadata = sa.MetaData()


def _scope_columns() -> list[sa.Column[str]]:
    names = ("owner", "tenant", "user", "agent", "run")
    return [sa.Column(name, sa.Text, nullable=False, server_default="") for name in names]


def _of_retrieval() -> sa.ForeignKey:
    return sa.ForeignKey("retrievals.id", ondelete="CASCADE")


turns = sa.Table(
    "turns",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    *_scope_columns(),
    sa.Column("conversation", sa.Text, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
    sa.Index("ix_turns_owner", "owner", "time"),
)

# `id` is the agent's own id, so it is unique per owner only. A row is never removed by the agent's own delete:
# `deleted_at` marks it, because past retrievals still point at it. `hins log purge` does remove rows.
memories = sa.Table(
    "memories",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    *_scope_columns(),
    sa.Column("conversation", sa.Text, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False, server_default=""),
    sa.Column("turn_ids", sa.JSON, nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
    sa.Column("updated_at", sa.Float(53), nullable=False),
    sa.Column("deleted_at", sa.Float(53), nullable=True),
    sa.UniqueConstraint("owner", "id", name="uq_memories_owner_id"),
    sa.Index("ix_memories_owner", "owner", "time"),
)

retrievals = sa.Table(
    "retrievals",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    *_scope_columns(),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("encoder_version", sa.Text, nullable=False, server_default=""),
    sa.Column("time", sa.Float(53), nullable=False),
    sa.Index("ix_retrievals_owner", "owner", "time"),
)

retrieval_results = sa.Table(
    "retrieval_results",
    metadata,
    sa.Column("retrieval_id", sa.Text, _of_retrieval(), primary_key=True),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("memory_id", sa.Text, nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("score", sa.Float(53), nullable=False),
)

# An answer or a feedback has no id of its own: `id` is the SHA-256 of its fields, so that writing it twice is harmless.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("retrieval_id", sa.Text, _of_retrieval(), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("memory_id", sa.Text, nullable=False, index=True),
    sa.Column("retrieval_id", sa.Text, _of_retrieval(), nullable=False, index=True),
    sa.Column("polarity", sa.String(8), nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
)

# Once a version was promoted, exactly one row has current = true. Without one, the project's first encoder serves.
encoder_versions = sa.Table(
    "encoder_versions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("current", sa.Boolean, nullable=False, server_default=sa.false()),
)

# Which collections of which agent hold vectors of which version. state: live, shadow, previous or retired;
# at most one live and one previous row for an agent_key. A shadow also has what its swap does (`step`), and how many
# of its records are done; null until the first is.
agent_indexes = sa.Table(
    "agent_indexes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("agent_key", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("suffix", sa.Text, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("changed", sa.Float(53), nullable=False),
    sa.Column("step", sa.Text, nullable=True),
    sa.Column("done", sa.BigInteger, nullable=True),
    sa.Column("records", sa.BigInteger, nullable=True),
)

# Which version serves the searches of one scope, in the place of the common one. `scope` is its key; `version` is ""
# after a rollback to the common one, `previous` is what a rollback returns to.
scoped_versions = sa.Table(
    "scoped_versions",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("changed", sa.Float(53), nullable=False),
)

# Versions that clients of `hins serve` have vectors of, as far as is known: they are kept and served until they are
# released. `released` is null until then.
http_versions = sa.Table(
    "http_versions",
    metadata,
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("first_used", sa.Float(53), nullable=False),
    sa.Column("released", sa.Float(53), nullable=True),
)

# Records that were written since the last swap of an agent; see changes.py. kind "*": the records are not known.
index_changes = sa.Table(
    "index_changes",
    metadata,
    sa.Column("agent_key", sa.Text, primary_key=True),
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("record", sa.Text, primary_key=True),
)

# Leases, see leases.py. A row stays when its lease is given back (owner ""), because
# `token` only ever grows: what was begun under a smaller token must not be finished.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, server_default=""),
    sa.Column("place", sa.Text, nullable=False, server_default=""),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("acquired", sa.Float(53), nullable=False),
    sa.Column("expires", sa.Float(53), nullable=False),
)

# Rounds of the loop. `answers` and `feedback` are the largest `seq` of those tables when the round began: what came
# later is new. A round without `finished` runs, or was killed. outcome: swapped, refused, too little or failed.
rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("agent", sa.Text, nullable=False, index=True),
    sa.Column("started", sa.Float(53), nullable=False),
    sa.Column("finished", sa.Float(53), nullable=True),
    sa.Column("outcome", sa.String(16), nullable=False, server_default=""),
    sa.Column("version", sa.Text, nullable=False, server_default=""),
    sa.Column("answers", sa.Integer, nullable=False),
    sa.Column("feedback", sa.Integer, nullable=False),
)

# What captures lost, a row for each that lost anything; counts only, no texts. See `CaptureStats`.
capture_losses = sa.Table(
    "capture_losses",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("changed", sa.Float(53), nullable=False),
    sa.Column("dropped", sa.Integer, nullable=False),
    sa.Column("pushed_out", sa.Integer, nullable=False),
    sa.Column("redaction", sa.Integer, nullable=False),
    sa.Column("restarts", sa.Integer, nullable=False),
)
