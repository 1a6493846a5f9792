"""Mem0's Elasticsearch and OpenSearch collections as indexes, listed by a point in time and `search_after`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.servers import ServerIndex
from hins_memory.errors import AgentError
from hins_memory.sdk.paging import chunks_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch
    from numpy.typing import NDArray
    from opensearchpy import OpenSearch

    from hins_memory.plugins.protocols import Record

__all__ = ["ElasticsearchIndex", "OpenSearchIndex"]

# How long a point in time lives between two pages, in which the records of one are embedded and written.
_KEEP = "30m"
# The most rows that one search gives.
_MOST_ROWS = 10_000
# The ids that one search names: no id has ten documents.
_MOST_IDS = _MOST_ROWS // 10


class _SearchServerIndex(ServerIndex):
    """What both have in common: what was written is found by searches and counted after a refresh."""

    def count(self) -> int:
        """Return the number of records."""
        self.refresh()
        answer: Mapping[str, Any] = with_retries(partial(self.store.raw.client.count, index=self.name))
        return int(answer["count"])

    def refresh(self) -> None:
        """Let searches find what is acknowledged."""
        with_retries(partial(self.store.raw.client.indices.refresh, index=self.name))

    def field(self, name: str) -> Mapping[str, Any]:
        """Return how the index maps a field."""
        answer: Mapping[str, Any] = with_retries(partial(self.store.raw.client.indices.get_mapping, index=self.name))
        # Under the name of the index, which may be another one if the collection is an alias.
        mapping: Mapping[str, Any] = next(iter(answer.values()))["mappings"]["properties"].get(name, {})
        return mapping


class ElasticsearchIndex(_SearchServerIndex):
    """One index of Elasticsearch 8 or later; the documents' ids are those of the memories."""

    def dimension(self) -> int | None:
        """Return the length of the stored vectors."""
        return self.field("vector").get("dims")

    def listed(self, size: int) -> Iterator[list[Record]]:
        """Yield all records as of one moment, at most `size` at a time."""
        self.refresh()
        client = self._client
        opened = with_retries(partial(client.open_point_in_time, index=self.name, keep_alive=_KEEP))
        point = opened["id"]

        def search(after: Sequence[Any] | None) -> Mapping[str, Any]:
            answer = client.search(
                pit={"id": point, "keep_alive": _KEEP},
                size=min(size, _MOST_ROWS),
                sort=[{"_shard_doc": "asc"}],
                search_after=after,
                source={"includes": ["metadata"]},
            )
            body: Mapping[str, Any] = answer.body
            return body

        try:
            for hits in _all_hits(self.name, search):
                yield [self.as_record(hit["_id"], hit["_source"].get("metadata")) for hit in hits]
        finally:
            client.close_point_in_time(id=point)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        if not ids:
            return []
        answer = with_retries(partial(self._client.mget, index=self.name, ids=list(ids), source=["metadata"]))
        for doc in answer["docs"]:
            if "error" in doc:
                raise AgentError(f"Elasticsearch cannot read {doc['_id']!r}: {doc['error']}.", "Look at the server.")
        return [self.as_record(doc["_id"], doc["_source"].get("metadata")) for doc in answer["docs"] if doc["found"]]

    def read_vectors(self, ids: Sequence[str]) -> dict[str, Sequence[float] | None]:
        """Return the stored vectors of those ids that exist."""
        self.refresh()
        found: dict[str, Sequence[float] | None] = {}
        for some in chunks_of(list(ids), _MOST_IDS):
            # Newer servers leave vectors out of a document's source, and give them as a field.
            answer = with_retries(
                partial(
                    self._client.search,
                    index=self.name,
                    query={"ids": {"values": some}},
                    size=len(some),
                    fields=[{"field": "vector"}],
                    source=False,
                )
            )
            found |= {hit["_id"]: hit.get("fields", {}).get("vector") for hit in _hits(self.name, answer.body)}
        return found

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        from elasticsearch.helpers import bulk

        rows = [
            {
                "_index": self.name,
                "_id": record.id,
                "_source": {"vector": vector.tolist(), "metadata": dict(record.payload)},
            }
            for record, vector in zip(records, vectors, strict=True)
        ]
        with_retries(lambda: bulk(self._client, rows))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        from elasticsearch.helpers import bulk

        rows = [{"_op_type": "delete", "_index": self.name, "_id": id_} for id_ in ids]
        with_retries(lambda: bulk(self._client, rows, ignore_status=404))

    @property
    def _client(self) -> Elasticsearch:
        client: Elasticsearch = self.store.raw.client
        return client


class OpenSearchIndex(_SearchServerIndex):
    """One index of OpenSearch 2.4 or later; a memory's id is a field of a document, whose own id is another one."""

    def dimension(self) -> int | None:
        """Return the length of the stored vectors."""
        return self.field("vector_field").get("dimension")

    def sample(self, count: int) -> list[Record]:
        """Return at most `count` records; an error is raised, where Mem0's list gives nothing."""
        answer = with_retries(partial(self._client.search, index=self.name, body={"size": count}))
        return [self._as_row(hit) for hit in _hits(self.name, answer)]

    def listed(self, size: int) -> Iterator[list[Record]]:
        """Yield all records as of one moment in the order of their ids, at most `size` at a time."""
        self.refresh()
        client = self._client
        opened = with_retries(partial(client.create_pit, index=self.name, params={"keep_alive": _KEEP}))
        point = opened["pit_id"]
        body: dict[str, Any] = {
            "pit": {"id": point, "keep_alive": _KEEP},
            "size": min(size, _MOST_ROWS),
            "sort": [{"id": "asc"}],
            "_source": ["id", "payload"],
        }

        def search(after: Sequence[Any] | None) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = client.search(body=body if after is None else {**body, "search_after": after})
            return answer

        try:
            for hits in _all_hits(self.name, search):
                yield [self._as_row(hit) for hit in hits]
        finally:
            client.delete_pit(body={"pit_id": [point]})

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = {hit["_source"]["id"]: hit for hit in self._documents(ids, ["id", "payload"])}
        return [self._as_row(hit) for hit in rows.values()]

    def read_vectors(self, ids: Sequence[str]) -> dict[str, Sequence[float] | None]:
        """Return the stored vectors of those ids that exist."""
        documents = self._documents(ids, ["id", "vector_field"])
        return {hit["_source"]["id"]: hit["_source"].get("vector_field") for hit in documents}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        known = {hit["_source"]["id"]: hit["_id"] for hit in self._documents([one.id for one in records], ["id"])}
        self._bulk(
            {
                "_index": self.name,
                # Where Mem0 wrote it, so that there is one row of a memory.
                "_id": known.get(record.id, record.id),
                "_source": {"id": record.id, "vector_field": vector.tolist(), "payload": dict(record.payload)},
            }
            for record, vector in zip(records, vectors, strict=True)
        )

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        documents = self._documents(list(ids), ["id"])
        self._bulk({"_op_type": "delete", "_index": self.name, "_id": hit["_id"]} for hit in documents)

    def _documents(self, ids: Sequence[str], fields: Sequence[str]) -> list[Any]:
        """Return the documents of memories, of each at most ten."""
        if ids:
            self.refresh()
        found: list[Any] = []
        for some in chunks_of(list(ids), _MOST_IDS):
            body = {"query": {"terms": {"id": some}}, "size": _MOST_ROWS, "_source": fields}
            found += _hits(self.name, with_retries(partial(self._client.search, index=self.name, body=body)))
        return found

    def _bulk(self, rows: Iterable[dict[str, Any]]) -> None:
        from opensearchpy.helpers import bulk

        actions = list(rows)
        with_retries(lambda: bulk(self._client, actions, ignore_status=404))

    def _as_row(self, hit: Mapping[str, Any]) -> Record:
        return self.as_record(hit["_source"]["id"], hit["_source"].get("payload"))

    @property
    def _client(self) -> OpenSearch:
        client: OpenSearch = self.store.raw.client
        return client


def _all_hits(name: str, search: Callable[[Sequence[Any] | None], Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Yield the hits of a search, page by page; `search` continues after the sort values of a hit."""
    after: Sequence[Any] | None = None
    while hits := _hits(name, with_retries(partial(search, after))):
        yield hits
        after = hits[-1]["sort"]


def _hits(name: str, answer: Mapping[str, Any]) -> list[Any]:
    """Return the hits of an answer, of all shards.

    Raises:
        AgentError: some shards did not answer.
    """
    failed = answer.get("_shards", {}).get("failed", 0)
    if failed or answer.get("timed_out"):
        raise AgentError(f"{failed} shards of {name} do not answer.", "Look at the server's health, then repeat it.")
    hits: list[Any] = answer["hits"]["hits"]
    return hits
