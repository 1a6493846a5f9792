"""Which index a Mem0 store gets: with its own paging where it is known, else through Mem0's interface."""

from __future__ import annotations

from hins_adapter_mem0.elastic import ElasticsearchIndex, OpenSearchIndex
from hins_adapter_mem0.index import QdrantIndex, StoreIndex
from hins_adapter_mem0.milvus import MilvusIndex
from hins_adapter_mem0.native import ChromaIndex, FaissIndex, PgvectorIndex
from hins_adapter_mem0.pinecone_rows import PineconeIndex
from hins_adapter_mem0.redis_rows import RedisIndex
from hins_adapter_mem0.stores import GuardedStore, provider_of, store_client
from hins_adapter_mem0.supabase import SupabaseIndex
from hins_adapter_mem0.weaviate_rows import WeaviateIndex

__all__ = ["open_index"]


def open_index(store: GuardedStore, kind: str) -> StoreIndex:
    """Return a store's index: with its own paging where it is known, else through Mem0's interface."""
    if store_client(store.raw) is not None:
        return QdrantIndex(store, kind)
    own = {
        "chroma": ChromaIndex,
        "elasticsearch": ElasticsearchIndex,
        "faiss": FaissIndex,
        "milvus": MilvusIndex,
        "opensearch": OpenSearchIndex,
        "pgvector": PgvectorIndex,
        "pinecone": PineconeIndex,
        "redis": RedisIndex,
        "supabase": SupabaseIndex,
        "weaviate": WeaviateIndex,
    }
    return own.get(provider_of(store.raw), StoreIndex)(store, kind)
