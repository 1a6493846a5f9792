"""A small real agent over SQLite, for tests of the swap: durable, searched by cosine, written from many threads."""

from __future__ import annotations

import json
import os
import sqlite3
import threading

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.plugins.protocols import Record
from hins_memory.sdk.agent_base import AgentBase

KINDS = ("memories", "entities")


class SmallIndex:
    """One table of (id, text, payload, vector)."""

    def __init__(self, store, kind, suffix):
        self.store, self._kind = store, kind
        self.table = f"{kind}{suffix}"
        store.execute(
            f'create table if not exists "{self.table}" (id text primary key, text text, payload text, vector blob)'
        )

    @property
    def name(self):
        return self.table

    @property
    def kind(self):
        return self._kind

    def count(self):
        return self.store.execute(f'select count(*) from "{self.table}"')[0][0]

    def pages(self, size):
        last = ""
        while True:
            rows = self.store.execute(
                f'select id, text, payload from "{self.table}" where id > ? order by id limit ?', (last, size)
            )
            if not rows:
                return
            yield [Record(id, text, json.loads(payload)) for id, text, payload in rows]
            last = rows[-1][0]

    def _where(self, columns, ids):
        ids = list(ids)
        marks = ",".join("?" * len(ids))
        return self.store.execute(f'select {columns} from "{self.table}" where id in ({marks})', ids)

    def get(self, ids):
        return [Record(id, text, json.loads(payload)) for id, text, payload in self._where("id, text, payload", ids)]

    def vectors(self, ids):
        return {id: np.frombuffer(vector, dtype=np.float32) for id, vector in self._where("id, vector", ids)}

    def upsert(self, records, vectors):
        rows = [
            (record.id, record.text, json.dumps(record.payload), np.asarray(vector, dtype=np.float32).tobytes())
            for record, vector in zip(records, vectors, strict=True)
        ]
        self.store.execute_many(f'insert or replace into "{self.table}" values (?, ?, ?, ?)', rows)

    def delete(self, ids):
        self.store.execute_many(f'delete from "{self.table}" where id = ?', [(id,) for id in ids])

    def drop(self):
        self.store.execute(f'drop table "{self.table}"')

    def search(self, vector, limit):
        rows = self.store.execute(f'select id, vector from "{self.table}"')
        scores = [(float(np.frombuffer(stored, dtype=np.float32) @ vector), id) for id, stored in rows]
        return [id for _, id in sorted(scores, reverse=True)[:limit]]


class Store:
    """One SQLite file, one call at a time."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self.connection.execute("pragma journal_mode=wal")
        self._lock = threading.Lock()

    def execute(self, statement, values=()):
        with self._lock:
            return self.connection.execute(statement, values).fetchall()

    def execute_many(self, statement, rows):
        with self._lock:
            self.connection.execute("begin")
            try:
                self.connection.executemany(statement, rows)
                self.connection.execute("commit")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("rollback")
                raise


class Binding:
    """An encoder and the indexes of its vectors; operations pin one and never mix two."""

    def __init__(self, store, encoder, suffix, index_type):
        self.encoder, self.suffix = encoder, suffix
        self.indexes = {kind: index_type(store, kind, suffix) for kind in KINDS}


class SmallAgent(AgentBase):
    """Stores texts with their entities, searches them, and implements the swap's protocol."""

    name = "small"
    score_thresholds = (0.1, 0.5)

    def __init__(self, path, registry, load_encoder=None, index_type=SmallIndex):
        self.store_id = f"small:{path}"
        self.store = Store(path)
        self.load_encoder = load_encoder or (lambda version: load_version(registry, version))
        self.index_type = index_type
        live = registry.live_index(self.store_id)
        if live is None:
            encoder = self.load_encoder("")
            registry.record_live(self.store_id, encoder.version, "")
            self.binding = Binding(self.store, encoder, "", index_type)
        else:
            self.binding = Binding(self.store, self.load_encoder(live.version), live.suffix, index_type)
        self.shadow = None
        self._lock = threading.RLock()

    # the agent's own operations

    def add(self, id, text, kind="memories", **payload):
        pinned = self.binding
        record = Record(id, text, {"data": text, **payload})
        pinned.indexes[kind].upsert([record], pinned.encoder.encode([text]))
        self._replicate(pinned, kind, id)

    def delete(self, id, kind="memories"):
        pinned = self.binding
        pinned.indexes[kind].delete([id])
        self._replicate(pinned, kind, id)

    def search(self, query, limit=3, kind="memories"):
        pinned = self.binding
        return pinned.indexes[kind].search(pinned.encoder.encode([query], role="query")[0], limit)

    def _replicate(self, pinned, kind, id):
        other = self.shadow or self.binding
        if other is pinned:
            return
        with self._lock:
            records = pinned.indexes[kind].get([id])
            if records:
                other.indexes[kind].upsert(records, other.encoder.encode([records[0].text]))
            else:
                other.indexes[kind].delete([id])

    # the swap's protocol

    @property
    def encoder_version(self):
        return self.binding.encoder.version

    def live_indexes(self):
        return list(self.binding.indexes.values())

    def open_indexes(self, version, suffix):
        return [self.index_type(self.store, kind, suffix) for kind in KINDS]

    def start_dual_write(self, version, suffix):
        self.shadow = Binding(self.store, self.load_encoder(version), suffix, self.index_type)

    def dual_write_lock(self):
        return self._lock

    def flush_dual_writes(self):
        """Nothing waits: a write reaches both stores or raises."""

    def switch_to(self, version, suffix):
        ready = self.shadow
        if ready is None or ready.suffix != suffix:
            ready = Binding(self.store, self.load_encoder(version), suffix, self.index_type)
        self.binding = ready
        self.shadow = None
        return 0.0

    def stop_dual_write(self):
        self.shadow = None


def load_version(registry, version):
    """Load a registered version, or the base for any other name."""
    known = {one.id for one in registry.versions()}
    return Encoder.load(registry.get(version).path) if version in known else Encoder.load(os.environ["HINS_BASE"])


def contents(index):
    """Return {id: (text, payload)} of an index."""
    return {record.id: (record.text, record.payload) for page in index.pages(100) for record in page}


def worst_cosine(index, encoder):
    """Return the smallest cosine between stored vectors and re-encoded texts."""
    texts = {record.id: record.text for page in index.pages(100) for record in page}
    stored = index.vectors(list(texts))
    expected = encoder.encode(list(texts.values()))
    return min(float(stored[id] @ vector) for id, vector in zip(texts, expected, strict=True))
