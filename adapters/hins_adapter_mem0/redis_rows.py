"""Mem0's Redis collections as indexes, paged by their keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.index import StoreIndex
from hins_memory.sdk.paging import pages_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["RedisIndex"]

_SCOPES = ("agent_id", "run_id", "user_id")
_TIMES = ("created_at", "updated_at")
_FIELDS = ("memory_id", "hash", "memory", "metadata", *_SCOPES, *_TIMES)
# What Mem0 keeps in a field of its own; the rest of a payload is JSON in the field "metadata".
_OWN = {"hash", "data", *_SCOPES, *_TIMES}


class RedisIndex(StoreIndex):
    """One collection of Redis: hashes whose keys begin with ``mem0:``, the collection's name and a colon.

    Payloads are as Mem0 gives them: it keeps times as whole seconds.
    """

    def count(self) -> int:
        """Return the number of records."""
        return len(self._ids())

    def dimension(self) -> int | None:
        """Return the length of the stored vectors; None while there are none."""
        some = next(self._keys(), None)
        return None if some is None else int(self._redis.hstrlen(some, "embedding")) // 4 or None

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""
        return pages_of(self._ids(), self.get, size)

    def sample(self, count: int) -> list[Record]:
        """Return at most `count` records, whichever Redis names first."""
        keys = [key for _, key in zip(range(count), self._keys(), strict=False)]
        return self.get([self._id(key) for key in keys])

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = self._hashes(ids, _FIELDS)
        return [self._as_row(id_, row) for id_, row in zip(ids, rows, strict=True) if row[0] is not None]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        rows = self._hashes(ids, ("embedding",))
        return {id_: np.frombuffer(row[0], np.float32) for id_, row in zip(ids, rows, strict=True) if row[0]}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim), all of them or none."""
        rows = {
            self._key(record.id): {**_as_hash(record), "embedding": vector.tobytes()}
            for record, vector in zip(records, vectors.astype("float32"), strict=True)
        }

        def write() -> None:
            pipeline = self._redis.pipeline(transaction=True)
            for key, row in rows.items():
                # A field that the record no longer has must not stay.
                pipeline.delete(key)
                pipeline.hset(key, mapping=row)
            pipeline.execute()

        if rows:
            with_retries(write)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if keys := [self._key(id_) for id_ in ids]:
            with_retries(lambda: self._redis.delete(*keys))

    @property
    def _redis(self) -> Any:
        return self.store.raw.client

    @property
    def _prefix(self) -> str:
        return f"{self.store.raw.schema['index']['prefix']}:"

    def _key(self, id_: str) -> str:
        return f"{self._prefix}{id_}"

    def _id(self, key: bytes) -> str:
        return key.decode()[len(self._prefix) :]

    def _keys(self) -> Iterator[bytes]:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + "*"
        return iter(self._redis.scan_iter(match=pattern, count=1000))

    def _ids(self) -> list[str]:
        # Redis may name a key twice.
        return with_retries(lambda: list(dict.fromkeys(map(self._id, self._keys()))))

    def _hashes(self, ids: Sequence[str], fields: Sequence[str]) -> list[list[bytes | None]]:
        def read() -> list[list[bytes | None]]:
            pipeline = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipeline.hmget(self._key(id_), list(fields))
            return list(pipeline.execute())

        return with_retries(read) if ids else []

    def _as_row(self, id_: str, row: Sequence[bytes | None]) -> Record:
        found = {name: value.decode() for name, value in zip(_FIELDS, row, strict=True) if value is not None}
        payload: dict[str, Any] = {"hash": found.get("hash", ""), "data": found.get("memory", "")}
        payload |= {name: _time_text(found[name]) for name in _TIMES if name in found}
        payload |= {name: found[name] for name in _SCOPES if name in found}
        return self.as_record(id_, payload | json.loads(found.get("metadata") or "{}"))


def _as_hash(record: Record) -> dict[str, Any]:
    """Return a record's fields as Mem0 writes them."""
    payload = record.payload
    row = {"memory_id": record.id, "hash": payload.get("hash", ""), "memory": payload.get("data", "")}
    row |= {name: _seconds(payload[name]) for name in _TIMES if name in payload}
    row |= {name: payload[name] for name in _SCOPES if name in payload}
    return {**row, "metadata": json.dumps({name: value for name, value in payload.items() if name not in _OWN})}


def _time_text(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), tz=timezone.utc).isoformat(timespec="microseconds")


def _seconds(text: str | None) -> int:
    with suppress(ValueError, TypeError):
        return int(datetime.fromisoformat(text or "").timestamp())
    return 0
