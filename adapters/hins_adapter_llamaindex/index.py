"""The vector stores of LlamaIndex as indexes: Chroma's collections; of other stores nothing can be listed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hins_memory.sdk import ChromaRows, IndexBase, UnlistedIndex, address_in, name_in_process, with_retries

__all__ = ["ChromaIndex", "open_index", "store_name"]

_CHROMA = "llama_index.vector_stores.chroma.base.ChromaVectorStore"


class ChromaIndex(ChromaRows, IndexBase):
    """One collection of Chroma: that of a `ChromaVectorStore`, or one beside it.

    Args:
        store: the LlamaIndex store that a block was made with.
        suffix: of a collection beside it; "" for its own.
    """

    texts_are_documents = True

    def __init__(self, store: Any, suffix: str = "") -> None:
        own = store.client
        super().__init__(str(own.name), suffix=suffix)
        self.guard = nullcontext()
        self._client = _chroma_client(own)
        self.collection = self._beside(own) if suffix else own
        #: the LlamaIndex store over the collection
        self.store = store
        if suffix:
            self.store = store.model_copy()
            self.store._collection = self.collection

    def _beside(self, own: Any) -> Any:
        """Open the collection, as the own one is, but for what may embed its texts: that is never asked."""
        space = ((own.configuration_json or {}).get("hnsw") or {}).get("space")
        options: dict[str, Any] = {"configuration": {"hnsw": {"space": space}}} if space else {}
        options["metadata"] = own.metadata
        return with_retries(
            lambda: self._client.get_or_create_collection(self.name, embedding_function=None, **options)
        )

    def ids(self) -> list[str]:
        """Return the ids of all rows."""
        return list(self.collection.get(include=[])["ids"])

    def drop(self) -> None:
        """Delete the collection with everything in it."""
        self._client.delete_collection(self.name)


def open_index(store: Any, suffix: str = "") -> Any:
    """Return the index of a store, or of the collection beside it that ends with `suffix`."""
    if _is_chroma(store):
        return ChromaIndex(store, suffix)
    return UnlistedIndex(
        store, suffix, "Use a ChromaVectorStore; or make the block with HinsEmbedding, and train with --mode tower."
    )


def store_name(store: Any) -> str:
    """Return what identifies a store in every process, without secrets; of one in memory, in this process."""
    if not _is_chroma(store):
        address = address_in(store)
        names = (getattr(store, name, None) for name in ("collection_name", "table_name", "index_name"))
        name = next((str(one) for one in names if one), "") if address != "default" else ""
        return f"llamaindex:{type(store).__name__}:{f'{address}:{name}' if name else name_in_process(store)}"
    system = store.client._client._system
    settings = system.settings
    if settings.chroma_server_host:
        place = f"{settings.chroma_server_host}:{settings.chroma_server_http_port}"
    else:
        place = str(settings.persist_directory) if settings.is_persistent else name_in_process(system)
    where = [
        str(Path(place).resolve()) if settings.is_persistent else place,
        store.client.tenant,
        store.client.database,
    ]
    return ":".join(["llamaindex:chroma", *map(str, where), str(store.client.name)])


def _is_chroma(store: Any) -> bool:
    return any(f"{cls.__module__}.{cls.__name__}" == _CHROMA for cls in type(store).__mro__)


def _chroma_client(collection: Any) -> Any:
    """Return a client of the database that has a collection; the collection itself only knows the server."""
    from chromadb.api.client import Client

    system = collection._client._system
    return Client.from_system(system, tenant=collection.tenant, database=collection.database)
