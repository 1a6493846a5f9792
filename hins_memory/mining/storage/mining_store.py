"""The miner's store: the examples of each owner in one SQLite file, so that a killed run can be continued.

It also keeps memory bounded: partial examples wait on disk until all owners are known. What would not be durable yet
is not written yet: a short run writes no example at all. Texts are stored as ASCII JSON, which holds any Python string.
Without a path the store is in memory and ends with the run.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import HinsError
from hins_memory.mining.negatives.pool import POOL_SIZE, PartialExample, TextPool
from hins_memory.mining.storage.work_file import ascii_json, open_work_file, take_up, work_file_errors
from hins_memory.types import Negative, Positive, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MiningStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS owners (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, occurrence INTEGER NOT NULL, content TEXT NOT NULL,
    scope TEXT NOT NULL, summary TEXT NOT NULL, examples INTEGER NOT NULL, position INTEGER, UNIQUE (key, occurrence));
CREATE INDEX IF NOT EXISTS owners_position ON owners (position);
CREATE TABLE IF NOT EXISTS examples (
    owner INTEGER NOT NULL, place INTEGER NOT NULL, confidence REAL NOT NULL, missing_negatives INTEGER NOT NULL,
    body TEXT NOT NULL, vectors BLOB, PRIMARY KEY (owner, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pool (
    priority INTEGER PRIMARY KEY, owner INTEGER NOT NULL, memory TEXT NOT NULL, text TEXT NOT NULL,
    vector BLOB NOT NULL);
"""
# What is not committed is mined again after a kill; committing each of many small owners would cost more.
_COMMIT_SECONDS = 1.0
# Looked up here in a third of the time that `Tier` takes.
_TIERS = {tier.value: tier for tier in Tier}
# SQLite's page cache takes this share of the budget, up to a ceiling, and what is not written yet as much again.
_CACHE_SHARE = 32
_CACHE_BYTES = 64 * 2**20
# Of Python's strings, at most; the ids of an example and its objects take about as much as 1,000 characters.
_CHARACTER_BYTES = 4
_EXAMPLE_BYTES = 4_000


class MiningStore:
    """What each owner gave so far.

    Args:
        path: the file, made if it is not there; None keeps all in memory.
        identity: settings, encoder and public texts in one string; a store of another identity is emptied.
        memory_budget: bytes; the page cache takes a small share.

    Raises:
        HinsError: the file cannot be opened or written, or another process is mining with it.
    """

    def __init__(self, path: Path | None, identity: str, memory_budget: int) -> None:
        self._path = path
        self._position = 0
        self._committed = time.monotonic()
        self._pool_limit: int | None = None
        self._cache = min(_CACHE_BYTES, memory_budget // _CACHE_SHARE)
        # Examples that are not written yet, by owner, in order of their places.
        self._waiting: dict[int, list[tuple[int, PartialExample]]] = {}
        self._waiting_bytes = 0
        with self._errors():
            self._db = open_work_file(path)
            self._db.execute(f"PRAGMA cache_size = -{self._cache // 1024}")
            self._db.execute("BEGIN EXCLUSIVE")
            take_up(self._db, _SCHEMA, identity, ("owners", "examples", "pool"))

    def _errors(self) -> AbstractContextManager[None]:
        return work_file_errors(
            self._path,
            f"The miner's store {self._path or 'in memory'} failed",
            "Check the disk and run again: finished owners are kept. If it is damaged, delete it.",
        )

    def close(self) -> None:
        """Close without committing: the current owner's examples and the removals of `cut` are discarded."""
        self._db.close()

    def known(self, scope: Scope, content: str) -> bool:
        """Say whether an owner was mined already with the same content, and take its place in the order if so.

        Args:
            scope: the owner.
            content: a digest of what the log holds of it; "" is never known.
        """
        key = ascii_json(scope.owner.key)
        with self._errors():
            found = self._db.execute(
                "SELECT id, content FROM owners WHERE key = ? AND occurrence = ?", (key, self._occurrence(key))
            ).fetchone()
            if found is None:
                return False
            if not content or found[1] != content:
                self._forget(found[0])
                return False
            self._db.execute("UPDATE owners SET position = ? WHERE id = ?", (self._position, found[0]))
        self._position += 1
        return True

    def _occurrence(self, key: str) -> int:
        """Return how often an owner came in this run; asked of the database, which does not grow in memory."""
        statement = "SELECT COUNT(*) FROM owners WHERE key = ? AND position IS NOT NULL"
        return int(self._db.execute(statement, (key,)).fetchone()[0])

    def _forget(self, owner: int) -> None:
        for table, column in (("owners", "id"), ("examples", "owner"), ("pool", "owner")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (owner,))

    def add(self, scope: Scope, content: str) -> int:
        """Begin an owner and return its number; it counts once `finish` was called."""
        key = ascii_json(scope.owner.key)
        parts = ascii_json([scope.user, scope.agent, scope.run, scope.tenant])
        with self._errors():
            cursor = self._db.execute(
                "INSERT INTO owners (key, occurrence, content, scope, summary, examples, position) "
                "VALUES (?, ?, ?, ?, '', 0, ?)",
                (key, self._occurrence(key), content, parts, self._position),
            )
        self._position += 1
        return int(cursor.lastrowid or 0)

    def add_examples(self, owner: int, examples: Sequence[tuple[int, PartialExample]]) -> None:
        """Keep examples of an owner, each with its place among all of the owner's; they come in order of it."""
        self._waiting.setdefault(owner, []).extend(examples)
        self._waiting_bytes += sum([_bytes_of(partial) for _, partial in examples])
        with self._errors():
            self._db.execute("UPDATE owners SET examples = examples + ? WHERE id = ?", (len(examples), owner))
            if self._waiting_bytes > self._cache:
                self._write_waiting()

    def _write_waiting(self) -> None:
        for owner, examples in self._waiting.items():
            values = (_example_values(owner, place, partial) for place, partial in examples)
            self._db.executemany("INSERT INTO examples VALUES (?, ?, ?, ?, ?, ?)", values)
        self._waiting.clear()
        self._waiting_bytes = 0

    def add_to_pool(
        self, owner: int, entries: Sequence[tuple[int, str, str]], vectors: Sequence[NDArray[np.float32]]
    ) -> None:
        """Offer memories, as (priority, id, text) with their vectors, to the pool; the first in order stay."""
        import numpy as np

        with self._errors():
            for (priority, memory, text), vector in zip(entries, vectors, strict=True):
                values = (
                    priority,
                    owner,
                    ascii_json(memory),
                    ascii_json(text),
                    np.asarray(vector, np.float32).tobytes(),
                )
                self._db.execute("INSERT OR REPLACE INTO pool VALUES (?, ?, ?, ?, ?)", values)
            self._trim_pool()

    def _trim_pool(self) -> None:
        last = self._db.execute(
            "SELECT priority FROM pool ORDER BY priority LIMIT 1 OFFSET ?", (POOL_SIZE - 1,)
        ).fetchone()
        if last is not None:
            self._pool_limit = int(last[0])
            self._db.execute("DELETE FROM pool WHERE priority > ?", last)

    def adopt(self, path: Path) -> None:
        """Take in the owners of another store's file, after those that are here; one that is known is not read again.

        Args:
            path: the file, closed, of the same settings, encoder and public texts.

        Raises:
            HinsError: it cannot be read, or is of other ones.
        """
        with self._errors():
            self._write_waiting()
            self._db.execute("COMMIT")
            self._db.execute("ATTACH ? AS part", (str(path),))
            try:
                self._db.execute("BEGIN EXCLUSIVE")
                here, there = (
                    self._db.execute(f"SELECT value FROM {name}.identity").fetchall() for name in ("main", "part")
                )
                if here != there:
                    raise HinsError(
                        f"{path} was mined with other settings, another encoder or another version of hins-memory.",
                        "Install the same version on all machines, delete the work folder, and run again.",
                    )
                for row in self._db.execute("SELECT * FROM part.owners ORDER BY position").fetchall():
                    self._adopt_owner(*row)
                self._trim_pool()
            finally:
                self._db.execute("COMMIT")
                self._db.execute("DETACH part")
                self._db.execute("BEGIN EXCLUSIVE")

    def _adopt_owner(
        self,
        there: int,
        key: str,
        _occurrence: int,
        content: str,
        scope: str,
        summary: str,
        examples: int,
        _position: int,
    ) -> None:
        user, agent, run, tenant = json.loads(scope)
        owner = Scope(user=user, agent=agent, run=run, tenant=tenant)
        if self.known(owner, content):
            return
        here = self.add(owner, content)
        columns = "place, confidence, missing_negatives, body, vectors"
        self._db.execute(f"INSERT INTO examples SELECT ?, {columns} FROM part.examples WHERE owner = ?", (here, there))
        self._db.execute(
            "INSERT OR REPLACE INTO pool SELECT priority, ?, memory, text, vector FROM part.pool WHERE owner = ?",
            (here, there),
        )
        self._db.execute("UPDATE owners SET summary = ?, examples = ? WHERE id = ?", (summary, examples, here))

    def wanted(self, priority: int) -> bool:
        """Say whether a memory of this priority would stay in the pool."""
        return self._pool_limit is None or priority < self._pool_limit

    def finish(self, owner: int, summary: Mapping[str, Any]) -> None:
        """End an owner; every second or so what was written becomes durable."""
        with self._errors():
            self._db.execute("UPDATE owners SET summary = ? WHERE id = ?", (ascii_json(summary), owner))
        self.commit()

    def commit(self, *, now: bool = False) -> None:
        """Make what finished owners gave durable, when the last time is over a second ago or `now` is set."""
        if now or time.monotonic() - self._committed > _COMMIT_SECONDS:
            with self._errors():
                self._write_waiting()
                self._db.execute("COMMIT")
                self._db.execute("BEGIN EXCLUSIVE")
            self._committed = time.monotonic()

    def drop_absent(self) -> None:
        """Forget owners of an earlier run that the log has no longer."""
        with self._errors():
            for (owner,) in self._db.execute("SELECT id FROM owners WHERE position IS NULL").fetchall():
                self._forget(owner)

    def summaries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each owner's key and summary in order."""
        with self._errors():
            for key, summary in self._db.execute("SELECT key, summary FROM owners ORDER BY position"):
                yield json.loads(key), json.loads(summary)

    def counts(self) -> Counter[int]:
        """Return how many owners have how many examples."""
        statement = "SELECT SUM(examples) FROM owners GROUP BY key HAVING SUM(examples) > 0"
        with self._errors():
            return Counter(count for (count,) in self._db.execute(statement))

    def cut(self, most: int) -> int:
        """Leave each owner its `most` surest examples; return how many went."""
        statement = """
            DELETE FROM examples WHERE (owner, place) IN (
                SELECT owner, place FROM (
                    SELECT examples.owner AS owner, place, ROW_NUMBER() OVER (
                        PARTITION BY key ORDER BY confidence DESC, position, place) AS rank
                    FROM examples JOIN owners ON owners.id = examples.owner) WHERE rank > ?)
        """
        with self._errors():
            self._write_waiting()
            return self._db.execute(statement, (most,)).rowcount

    def examples(self) -> Iterator[tuple[int, PartialExample]]:
        """Yield each owner's number and its partial examples, in order of the owners in the log."""
        owners = "SELECT id, scope FROM owners ORDER BY position"
        statement = "SELECT confidence, missing_negatives, body, vectors FROM examples WHERE owner = ? ORDER BY place"
        with self._errors():
            for owner, scope in self._db.execute(owners):
                user, agent, run, tenant = json.loads(scope)
                whose = Scope(user=user, agent=agent, run=run, tenant=tenant)
                for row in self._db.execute(statement, (owner,)):
                    yield owner, _read_partial(whose, *row)
                for _, partial in self._waiting.pop(owner, ()):
                    yield owner, partial

    def pool(self) -> TextPool | None:
        """Return the pool of all owners' memories; None where it is empty."""
        import numpy as np

        statement = "SELECT text, memory, key, vector FROM pool JOIN owners ON owners.id = pool.owner ORDER BY priority"
        with self._errors():
            rows = self._db.execute(statement).fetchall()
        if not rows:
            return None
        texts, ids, keys = (tuple(json.loads(row[column]) for row in rows) for column in range(3))
        vectors = np.stack([np.frombuffer(row[3], dtype=np.float32) for row in rows])
        return TextPool(texts, ids, np.asarray(keys), vectors)


def _bytes_of(partial: PartialExample) -> int:
    """Return about how much memory an example takes."""
    example, vectors = partial.example, (partial.query_vector, partial.positive_vector)
    texts = len(example.positive.query) + len(example.positive.text) + sum([len(one.text) for one in example.negatives])
    return _EXAMPLE_BYTES + _CHARACTER_BYTES * texts + sum(vector.nbytes for vector in vectors if vector is not None)


def _example_values(owner: int, place: int, partial: PartialExample) -> tuple[int, int, float, int, str, bytes | None]:
    import numpy as np

    example = partial.example
    positive = example.positive
    body = [
        example.conversation,
        [positive.query, positive.memory_id, positive.text, positive.source, positive.retrieval_id],
        [[one.memory_id, one.text, one.tier, one.score] for one in example.negatives],
    ]
    vectors = None
    if partial.query_vector is not None and partial.positive_vector is not None:
        vectors = np.stack([partial.query_vector, partial.positive_vector]).astype(np.float32).tobytes()
    return owner, place, positive.confidence, partial.missing_negatives, ascii_json(body), vectors


def _read_partial(
    scope: Scope, confidence: float, missing_negatives: int, body: str, blob: bytes | None
) -> PartialExample:
    import numpy as np

    conversation, (query, memory, text, source, retrieval), negatives = json.loads(body)
    positive = Positive(query, memory, text, source, confidence, retrieval)
    dealt = tuple([Negative(one, text, _TIERS[tier], score) for one, text, tier, score in negatives])
    example = TieredExample(scope, conversation, positive, dealt)
    if blob is None:
        return PartialExample(example, missing_negatives)
    vectors = np.frombuffer(blob, dtype=np.float32).reshape(2, -1)
    return PartialExample(example, missing_negatives, vectors[0], vectors[1])
